"""Where something was computed: versions, devices, the commit. For records and for bug reports."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import astarpo.runtime

_RECORDED = ("torch", "transformers")


def environment(device: str) -> dict[str, str | None]:
    """What the numbers of a run may depend on beside its settings.

    Args:
        device: `cpu`, `cuda`, or `auto` for the GPU where there is one.

    Returns:
        `python`, `astarpo`, `torch` and `transformers` by version, `platform`, `device` by its
        name, and the `commit` of the package, None where it was not installed from a repository.
    """
    return {
        "python": platform.python_version(),
        "astarpo": version_of("astarpo"),
        "commit": commit(),
        **{name: version_of(name) for name in _RECORDED},
        "platform": platform.platform(),
        "device": device_name(device),
    }


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution, PyTorch's with its build; None where it is none."""
    if distribution == "torch":  # Of a build for GPUs the distribution does not say which it is.
        import torch

        return str(torch.__version__)
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def device_name(device: str) -> str:
    """What a device is called: `NVIDIA H100 80GB HBM3`, or a processor and how many cores of it."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {num_cores()} cores"


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """What the processor calls itself."""
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


@cache
def commit() -> str | None:
    """The commit of the package's code, with `-dirty` where files differ from it.

    Asked once a process, which runs the code that it found at its start. None where the code is not
    in a git checkout of its own, as in an environment's site-packages, whatever repository that
    environment lies in.
    """
    folder = Path(astarpo.runtime.__file__).parent
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    """What git says in a folder; None where it fails or is not there."""
    if shutil.which("git") is None:
        return None
    # Asking must not lock the checkout, in which the user may be at work.
    quiet: Mapping[str, str] = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, env=quiet
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
