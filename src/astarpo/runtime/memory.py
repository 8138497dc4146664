"""How much memory this process has taken."""

import resource
import sys

import torch


def peak_memory_gib() -> float:
    """Most memory so far: allocated on the GPU where there is one, else resident in RAM."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def device_memory_gib() -> dict[str, float]:
    """GPU memory in use now, by whatever process and library, as `device_memory_gib`.

    PyTorch's own count knows nothing of what vLLM has taken. Empty where there is no GPU.
    """
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"device_memory_gib": (total - free) / 2**30}
