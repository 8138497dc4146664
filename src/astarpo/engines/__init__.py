"""Engines sample completions from a policy; a setting says which."""

from astarpo.config import ComputeConfig
from astarpo.engines.base import Engine
from astarpo.engines.hf import GenerateEngine, HFEngine
from astarpo.models.policy import Policy

ENGINES = {"hf": HFEngine, "generate": GenerateEngine}


def open_engine(config: ComputeConfig, policy: Policy) -> Engine:
    """The engine that the settings name, for a policy."""
    return ENGINES[config.engine](policy, config.max_sequences)
