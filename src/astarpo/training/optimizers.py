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
            tensor = value.contiguous() if isinstance(value, Tensor) else torch.tensor(value)
            if tensor.data_ptr() in storages:  # 8-bit states share one table of values
                tensor = tensor.clone()
            storages.add(tensor.data_ptr())
            tensors[f"{name}:{entry}"] = tensor
    return tensors


def restore_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Puts what `state_tensors` gave into an optimiser that has not been used yet."""
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition(":")
        # torch counts steps in floating point, bitsandbytes in plain integers.
        value = tensor.item() if tensor.dtype == torch.int64 else tensor
        optimizer.state[parameters[name]][entry] = value


def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            "optimizer adamw_8bit: bitsandbytes is not installed; pip install bitsandbytes"
        ) from error
