"""How much memory this process has taken."""

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory_gib() -> float:
    """Most memory so far: allocated on the GPU where there is one, else resident in RAM."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_resident_bytes() / 2**30


def peak_resident_bytes() -> int:
    """Most memory in RAM that this process has had since it began its program."""
    if _STATUS.exists():  # On Linux getrusage begins with what the parent had.
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_memory_gib() -> dict[str, float]:
    """GPU memory in use now, by whatever process and library, as `device_memory_gib`.

    PyTorch's own count knows nothing of what vLLM has taken. Empty where there is no GPU.
    """
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"device_memory_gib": (total - free) / 2**30}
