"""Engines sample completions from a policy; a setting says which."""

import torch

from astarpo.config import ComputeConfig
from astarpo.engines.base import Engine
from astarpo.engines.hf import GenerateEngine, HFEngine
from astarpo.models.policy import Policy, load_policy
from astarpo.models.vocabulary import Vocabulary

ENGINES = {"hf": HFEngine, "generate": GenerateEngine}


def open_engine(config: ComputeConfig, policy: Policy) -> Engine:
    """Opens the engine that the settings name, for a policy of this process.

    Example:
        with open_engine(config, policy) as engine:
            completions = engine.generate(requests, Sampling(max_new_tokens=256))
    """
    return ENGINES[config.engine](policy, config.max_sequences)


def load_engine(
    config: ComputeConfig, model: str, vocabulary: Vocabulary, device: torch.device
) -> Engine:
    """Opens the engine that the settings name, for a model that is only sampled from.

    Whether its weights are loaded into this process is the engine's affair; nothing else needs
    them.

    Args:
        config: Names the engine.
        model: A model folder or a hub name.
        vocabulary: The model's.
        device: Where to compute.

    Raises:
        UserError: The model does not load.
    """
    return open_engine(config, load_policy(model, device, vocabulary))
