"""Optimisers by name.

    adamw       torch's: two moments in fp32, 8 bytes a parameter
    adamw_8bit  bitsandbytes': two moments in 8 bits, 2 bytes a parameter, scaled block by block of
                256; tensors of fewer than 4096 elements keep theirs in fp32

The state of an optimiser is saved and restored as it is, whatever entries it has.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from astarpo.models.shards import TensorFiles
from astarpo.types import UserError

OptimizerName = Literal["adamw", "adamw_8bit"]

_BETAS = (0.9, 0.999)


def require_optimizer(name: OptimizerName) -> None:
    """Checks that an optimiser's library is installed, before anything long begins."""
    if name == "adamw_8bit":
        _bitsandbytes()


def make_optimizer(
    name: OptimizerName, groups: list[dict[str, Any]], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over groups of parameters; `lr` is for those that have none of their own."""
    settings = {"lr": lr, "betas": _BETAS, "weight_decay": weight_decay}
    if name == "adamw_8bit":
        return _bitsandbytes().optim.AdamW8bit(groups, **settings)
    return torch.optim.AdamW(groups, **settings, fused=True)


def state_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The state of an optimiser by `PARAMETER:ENTRY`; empty before its first step."""
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, parameter in parameters.items():
        for entry, value in optimizer.state[parameter].items():
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
            if not isinstance(tensor, DTensor):
                tensor = tensor.contiguous()
                if tensor.data_ptr() in storages:  # 8-bit states share one table of values
                    tensor = tensor.clone()
                storages.add(tensor.data_ptr())
            tensors[f"{name}:{entry}"] = tensor
    return tensors


def restore_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    files: TensorFiles,
) -> None:
    """Puts what `state_tensors` gave into an optimiser that has not been used yet.

    Args:
        optimizer: Not used yet.
        parameters: What it trains, by name; of those that are shared out each process reads the
            parts that it holds.
        files: What was written, on whatever number of processes.
    """
    for key in files:
        name, _, entry = key.rpartition(":")
        parameter = parameters[name]
        if isinstance(parameter, DTensor) and files.shape(key) == parameter.shape:
            value: Any = _shared_like(parameter, files.read_like(key, parameter))
        else:
            tensor = files.read(key)
            # torch counts steps in floating point, bitsandbytes in plain integers.
            value = (
                tensor.item()
                if tensor.dtype == torch.int64
                else tensor.to(parameter.device, copy=True)
            )
        optimizer.state[parameter][entry] = value


def _shared_like(parameter: DTensor, part: Tensor) -> DTensor:
    """A tensor that is shared out as a parameter is, from this process's part."""
    return DTensor.from_local(
        part.to(parameter.device, copy=True),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            "optimizer adamw_8bit: bitsandbytes is not installed; pip install bitsandbytes"
        ) from error
