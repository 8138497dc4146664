"""Engines sample completions from a policy; a setting says which."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from astarpo.config import ComputeConfig, TrainConfig
from astarpo.engines.base import Engine
from astarpo.engines.hf import GenerateEngine, HFEngine
from astarpo.engines.replica import ReplicaEngine
from astarpo.engines.vllm.engine import VLLMEngine
from astarpo.engines.vllm.opening import is_installed, require_installed
from astarpo.models.policy import Policy
from astarpo.models.sharded import is_sharded
from astarpo.models.vocabulary import Vocabulary
from astarpo.runtime.devices import pick_device
from astarpo.runtime.one_process import OneProcess

logger = logging.getLogger("astarpo")

ENGINES = {"hf": HFEngine, "generate": GenerateEngine, "vllm": VLLMEngine}

C = TypeVar("C", bound=ComputeConfig)


def require_engine(config: ComputeConfig) -> None:
    """Checks that the engine asked for is installed; imports nothing."""
    if config.engine == "vllm":
        require_installed()


def choose_engine(config: C) -> C:
    """Settles which engine `auto` is on this machine, and says so; nothing is loaded.

    Returns:
        The config with the engine's name.
    """
    if config.engine != "auto":
        return config
    on_cuda = pick_device(config.device).type == "cuda"
    name = "vllm" if on_cuda and is_installed() else "hf"
    if not on_cuda:
        logger.info(f"engine auto: {name}, since there is no GPU in use")
    elif name == "vllm":
        logger.info("engine auto: vllm, since there is a GPU")
    return config.model_copy(update={"engine": name})


def open_engine(
    config: ComputeConfig,
    policy: Policy,
    context: int | None = None,
    where: OneProcess | None = None,
) -> Engine:
    """Opens the engine that the settings name, for a policy of this process.

    Args:
        config: Names an engine; see `choose_engine`.
        policy: Sampled from, as it is now and at each `sync`.
        context: Tokens of the longest prompt and its response; None for the model's own limit.
        where: The processes that share the policy's weights, which all open an engine; each gets
            one that holds all of them. None where the policy is this process's alone.

    Raises:
        UserError: The engine cannot be had here.

    Example:
        with open_engine(choose_engine(config), policy) as engine:
            completions = engine.generate(requests, Sampling(max_new_tokens=256))
    """
    if config.engine == "vllm":
        fp32 = isinstance(config, TrainConfig) and config.fp32_head
        rows, memory = config.max_sequences, config.engine_memory
        return VLLMEngine(policy, rows, context=context, memory=memory, fp32_head=fp32, where=where)
    kind: Any = ENGINES[config.engine]
    if where is not None and is_sharded(policy.model):
        make = partial(kind, max_sequences=config.max_sequences)
        engine: HFEngine | ReplicaEngine = ReplicaEngine(policy, make, where)
    else:
        engine = kind(policy, config.max_sequences)
    if reason := slower_because(config.engine, policy.device.type, installed=is_installed()):
        engine.facts["slower_because"] = reason
        logger.warning(f"engine {config.engine}: {reason}; sampling takes several times as long")
    return engine


def load_engine(
    config: ComputeConfig,
    vocabulary: Vocabulary,
    load: Callable[[], Policy],
    context: int | None = None,
) -> Engine:
    """Opens the engine that the settings name, for a model that is only sampled from.

    Args:
        config: Names an engine; see `choose_engine`.
        vocabulary: The model's; vLLM reads the weights by its name.
        load: Loads the weights here, for an engine that samples from a module of this process.
        context: Tokens of the longest prompt and its response; None for the model's own limit.

    Raises:
        UserError: The engine cannot be had here, or the model does not load.
    """
    if config.engine != "vllm":
        return open_engine(config, load(), context)
    device, memory = pick_device(config.device), config.engine_memory
    rows = config.max_sequences
    return VLLMEngine(vocabulary, rows, device=device, context=context, memory=memory)


def slower_because(engine: str, device: str, *, installed: bool) -> str | None:
    """Why a GPU is not sampled on by vLLM, for the log and the record; None where nothing is lost.

    Args:
        engine: The one in use.
        device: `cpu` or `cuda`.
        installed: Whether vLLM is.
    """
    if engine == "vllm" or device != "cuda":
        return None
    if not installed:
        return "vLLM is not installed (pip install 'astarpo[vllm]')"
    return "asked for in place of vLLM, which is installed"
