"""Tensors in safetensors files, written and read by any number of processes.

    model.safetensors                 where one process writes, or all fits into one file
    model-00001-of-00003.safetensors  else, and model.safetensors.index.json names the file of each
                                      tensor, as in a Hugging Face folder

A tensor is whole in its file, so that the files do not depend on how many processes wrote them and
any number of them can read them. To write, all processes put one tensor after another together, and
each keeps the ones of the file that it writes; to read, each takes its own parts out of the files.

PyTorch's own checkpoints (DCP) are not used: their `.metadata` file is a pickle, which runs code
when it is loaded. Their writer of safetensors has none, but first writes the parts of each process,
all of which one process then reads and writes once more to make a Hugging Face folder of them.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from astarpo.models.sharded import whole
from astarpo.runtime.one_process import OneProcess
from astarpo.types import UserError

MAX_BYTES = 4 << 30
"""Of a file where several processes write, which is what a process then holds in host memory."""


def write_tensors(
    folder: Path,
    stem: str,
    tensors: Mapping[str, Tensor],
    where: OneProcess | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    max_bytes: int | None = None,
) -> list[Path]:
    """Writes tensors to files; all processes call it alike, and each writes some of the files.

    Args:
        folder: Where; all processes see it.
        stem: Files are called `STEM.safetensors`, or by this and a number.
        tensors: By name, on every process the same names in the same order.
        where: The processes; None for this one alone.
        metadata: For the head of each file.
        max_bytes: Of a file, else `MAX_BYTES`. One process writes all into one.

    Returns:
        The files that this process wrote, which are on disk then.

    Raises:
        Exception: Whatever writing failed with, after the last tensor was put together: the other
            processes do not wait for this one.
    """
    rank, size = (where.rank, where.size) if where else (0, 1)
    files = _plan(tensors, max_bytes or MAX_BYTES) if size > 1 else [list(tensors)]
    names = [f"{stem}-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    names = names if len(files) > 1 else [f"{stem}.safetensors"]
    written: list[Path] = []
    failure: Exception | None = None
    for start in range(0, len(files), size):
        mine = {}
        for number, file in enumerate(files[start : start + size]):
            for name in file:
                tensor = whole(tensors[name].detach())
                if number == rank:
                    mine[name] = tensor.contiguous().cpu()
                del tensor
        if start + rank < len(files) and failure is None:
            path = folder / names[start + rank]
            try:
                save_file(mine, path, metadata=dict(metadata) if metadata else None)
                _fsync(path)
            except Exception as error:  # the other processes go on putting tensors together
                failure = error
            written.append(path)
    if len(files) > 1 and rank == 0 and failure is None:
        places = {name: place for place, file in zip(names, files, strict=True) for name in file}
        written.append(_write_index(folder, stem, tensors, places))
    if failure:
        raise failure
    return written


class TensorFiles:
    """The tensors of a folder's safetensors files, of which only what is asked for is read.

    Example:
        with TensorFiles(folder, "model") as files:
            for name, parameter in model.named_parameters():
                set_own_part(parameter, files.read_like(name, parameter))
    """

    def __init__(self, folder: Path, stem: str) -> None:
        """Opens `STEM.safetensors`, or the files that its index names.

        Raises:
            FileNotFoundError: A file is not there.
        """
        self._folder = folder
        single = folder / f"{stem}.safetensors"
        paths = [single]
        if not single.is_file():
            index = json.loads((folder / f"{single.name}.index.json").read_text(encoding="utf-8"))
            paths = [folder / name for name in sorted(set(index["weight_map"].values()))]
        self._stack = ExitStack()
        self._places: dict[str, Any] = {}
        for path in paths:
            file = self._stack.enter_context(safe_open(path, framework="pt"))
            self._places |= dict.fromkeys(file.keys(), file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the files."""
        self._places = {}
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        """The names of all tensors."""
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, which is not read."""
        return torch.Size(self._places[name].get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """A whole tensor."""
        return self._places[name].get_tensor(name)

    def read_like(self, name: str, like: Tensor) -> Tensor:
        """The part of a tensor that this process holds of another one of the same shape.

        Raises:
            UserError: Their shapes differ.
        """
        if self.shape(name) != like.shape:
            raise UserError(
                f"{self._folder}: {name} has the shape {list(self.shape(name))}, and this model "
                f"needs {list(like.shape)}: it belongs to another model"
            )
        if not isinstance(like, DTensor):
            return self.read(name)
        if not like.to_local().numel():  # with more processes than rows some hold nothing
            return torch.empty_like(like.to_local(), device="cpu")
        return self._places[name].get_slice(name)[_own_part(like)]


@torch.no_grad()
def set_own_part(tensor: Tensor, part: Tensor) -> None:
    """Fills what this process holds of a tensor."""
    own = tensor.detach()
    own = own.to_local() if isinstance(own, DTensor) else own
    own.copy_(part)


def own_part(values: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a tensor, cut out of one that is whole."""
    return values[_own_part(like)] if isinstance(like, DTensor) else values


def _own_part(tensor: DTensor) -> tuple[slice, ...]:
    sizes, starts = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    if 0 in sizes:
        starts = (0,) * len(sizes)
    return tuple(slice(start, start + n) for start, n in zip(starts, sizes, strict=True))


def _plan(tensors: Mapping[str, Tensor], max_bytes: int) -> list[list[str]]:
    """Names of the tensors of each file, in order."""
    files: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if files[-1] and filled + _bytes(tensor) > max_bytes:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += _bytes(tensor)
    return files


def _write_index(
    folder: Path, stem: str, tensors: Mapping[str, Tensor], places: Mapping[str, str]
) -> Path:
    """Writes which file has each tensor, as transformers does."""
    total = sum(_bytes(tensor) for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    path = folder / f"{stem}.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return path


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
