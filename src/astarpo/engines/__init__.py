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

    Nothing else needs the weights, so that an engine may load them elsewhere than in this process.
    """
    return open_engine(config, load_policy(model, device, vocabulary))
