"""The verb `env`: what a bug report needs to say of the machine and of what is installed."""

import os
import re
import shutil
from importlib import metadata
from pathlib import Path

from astarpo.config import EnvConfig
from astarpo.runtime.environment import (
    commit,
    device_name,
    environment,
    num_cores,
    processor_name,
    version_of,
)
from astarpo.runtime.tables import text_table

_VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_OFFLINE",
)  # fmt: skip
"""What changes how things run. Others, which may be secrets, are not read."""

_GIB = 2**30


def env(config: EnvConfig) -> str:
    """Versions, devices, disk, and which optional packages are installed, as a table."""
    return "\n".join(text_table(prepare(config)))


def prepare(config: EnvConfig) -> list[tuple[str, str]]:
    """Names and values, in lines."""
    del config  # It has no settings.
    here = environment("auto")
    rows = [
        ("astarpo", f"{here['astarpo']}, commit {commit() or 'not known'}"),
        ("from", str(Path(__file__).parents[1])),
        ("python", f"{here['python']}"),
        ("platform", f"{here['platform']}"),
        *_devices(),
        ("memory", _memory()),
        *_disk(),
    ]
    needed, optional = _requirements()
    rows += [(name, version_of(name) or "missing") for name in needed]
    rows += [
        (name, _version(name) or f"not installed: pip install 'astarpo[{extra}]'")
        for name, extra in optional.items()
    ]
    return rows + [(name, os.environ[name]) for name in _VARIABLES if name in os.environ]


def preview(config: EnvConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    return [f"{len(prepare(config))} lines"]


def _version(name: str) -> str | None:
    """The version of a distribution, or of its build for CPUs, which for vLLM has another name."""
    if found := version_of(name):
        return found
    found = version_of(f"{name}-cpu")
    return found and f"{found} ({name}-cpu)"


def _devices() -> list[tuple[str, str]]:
    import torch

    rows = [("cpu", f"{processor_name()}, {num_cores()} cores, {torch.get_num_threads()} threads")]
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory / _GIB
        rows.append((f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, {memory:.0f} GiB"))
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"PyTorch is built for CUDA {built}" if built else "PyTorch is built without CUDA"
        rows.append(("cuda", f"no device ({why})"))
    return [*rows, ("auto means", device_name("auto"))]


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / _GIB:.1f} GiB"


def _disk() -> list[tuple[str, str]]:
    from huggingface_hub.constants import HF_HUB_CACHE

    rows = []
    for name, path in (("disk here", Path.cwd()), ("disk of models", Path(HF_HUB_CACHE))):
        place = next(folder for folder in (path, *path.parents) if folder.exists())
        free, total = (shutil.disk_usage(place)[i] / _GIB for i in (2, 0))
        rows.append((name, f"{path}: {free:.0f} of {total:.0f} GiB free"))
    return rows


def _requirements() -> tuple[list[str], dict[str, str]]:
    """What the package needs, and what it can use: distributions, the latter with their extra."""
    needed, optional = [], {}
    for line in metadata.requires("astarpo") or []:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra == ['\"](.+?)['\"]", line)
        if name is None:
            continue
        if extra is None:
            needed.append(name[0])
        elif extra[1] not in ("dev", "bench", "docs"):  # Those are for work on the package itself.
            optional[name[0]] = extra[1]
    return needed, optional
