"""Finding and starting vLLM; why it cannot, in one line."""

import importlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from astarpo.models.agreement import describe_error
from astarpo.types import UserError

logger = logging.getLogger("astarpo")

TESTED = "0.32.0"
"""The version of vLLM that the tests run with."""

_ENVIRONMENT = {
    # The engine's core runs in this process, so that weights are handed over and not sent.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "CRITICAL",  # errors come with dumps of everything, and as exceptions
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer computes on the same cores
}


def is_installed() -> bool:
    """Whether there is a vLLM here; it is not imported, which takes seconds."""
    return importlib.util.find_spec("vllm") is not None


def require_installed() -> None:
    """Refuses to go on without vLLM."""
    if not is_installed():
        raise UserError(
            "engine vllm: vLLM is not installed; pip install 'astarpo[vllm]', or take --engine hf"
        )


def import_vllm() -> Any:
    """vLLM, set up to run in this process; a warning says that its version is not the tested one.

    Raises:
        UserError: It is not installed, or cannot be imported.
    """
    if "VLLM_LOGGING_LEVEL" not in os.environ:  # which it reads after its first remarks
        logging.getLogger("vllm").setLevel(logging.CRITICAL)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    require_installed()
    try:
        with quiet():
            vllm = importlib.import_module("vllm")
            importlib.import_module("vllm.entrypoints.llm")
    except Exception as error:  # A library that does not fit fails in ways of its own.
        raise UserError(
            f"engine vllm: vLLM cannot be imported ({describe_error(error)}); docs/gpu.md has the "
            "versions that go together, or take --engine hf"
        ) from error
    if vllm.__version__.split("+")[0] != TESTED:
        logger.warning(
            f"engine vllm: vLLM {vllm.__version__} has not been tested with this package, "
            f"{TESTED} has (docs/gpu.md)"
        )
    return vllm


def require_device(vllm: Any, device: torch.device) -> None:
    """Refuses a device that the installed vLLM is not made for."""
    made_for = vllm.platforms.current_platform.device_type
    if made_for != device.type:
        raise UserError(
            f"engine vllm: the vLLM installed here samples on {made_for or 'no device'}, and "
            f"--device is {device.type}; give the same, or take --engine hf"
        )


def llm_settings(dtype: str, device: torch.device, *, fp32_head: bool) -> dict[str, Any]:
    """What vLLM's `LLM` is told, whatever the model."""
    on_cuda = device.type == "cuda"
    return {
        "dtype": dtype,
        "load_format": "safetensors",  # and no other, which may run code
        "enforce_eager": not on_cuda,  # there is nothing to capture on a CPU
        "enable_sleep_mode": on_cuda,
        # On a CPU vLLM 0.32.0 fails where a prompt with a seed is read in two parts.
        "enable_chunked_prefill": on_cuda,
        "generation_config": "vllm",  # not the model's own, whose penalties would be applied
        "logprobs_mode": "processed_logprobs",  # of the distribution that is drawn from
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "hf_overrides": {"head_dtype": "float32"} if fp32_head else {},
    }


def start(vllm: Any, model: str, settings: dict[str, Any]) -> Any:
    """Opens vLLM's `LLM`; raises a UserError with its reason where it does not start."""
    try:
        with quiet():
            return vllm.LLM(model=model, **settings)
    except Exception as error:
        text = " ".join(str(error).split())
        length = settings["max_model_len"]
        if "KV cache" in text:
            raise UserError(
                f"engine vllm: no memory for one sequence of {length} tokens; lower "
                "max_prompt_tokens or max_new_tokens, or give it more (--engine-memory; on a CPU "
                "the variable VLLM_CPU_KVCACHE_SPACE, in GiB)"
            ) from error
        if "GPU memory utilization" in text:
            share = settings["gpu_memory_utilization"]
            raise UserError(
                f"engine vllm: {share:.0%} of the GPU's memory, vLLM's share, is not free; "
                f"lower --engine-memory, or end what else uses the GPU ({text[:120]})"
            ) from error
        raise UserError(
            f"engine vllm: vLLM does not start with this model ({type(error).__name__}: "
            f"{text[:300]}); take --engine hf"
        ) from error


def shut_down(llm: Any, *, keep_group: bool) -> None:
    """Ends vLLM.

    Args:
        llm: What `start` gave.
        keep_group: Whether the group of all processes was there before it, which it would end too.
    """
    core: Any = importlib.import_module("vllm.v1.engine.core")
    disconnect = core.cleanup_dist_env_and_memory
    with quiet():
        try:
            if keep_group:
                core.cleanup_dist_env_and_memory = _leave_groups
            llm.llm_engine.engine_core.shutdown()
            core.cleanup_dist_env_and_memory()
        finally:
            core.cleanup_dist_env_and_memory = disconnect


def _leave_groups() -> None:
    """Ends vLLM's own groups of processes."""
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    state.destroy_model_parallel()
    if state._WORLD:
        state._WORLD.destroy()
    state._WORLD = None  # else the next vLLM would take it for its own


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Python's warnings of other libraries out of the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
