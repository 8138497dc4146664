"""Models that several processes hold in parts, by PyTorch's FSDP2.

Each process keeps its share of every weight, of its gradient and of the optimiser's state. A layer
is put together from all processes just before it is computed, and let go of right after; the
embedding, the last norm and the output layer stay until the backward pass is through.

FSDP2 puts weights together when a module is called. Log-probs are no single call: they go through
the decoder and then, chunk by chunk, through the output layer (`logprobs.py`, `critic.py`). So all
that lies between token ids and log-probs runs inside of one method of the model, which is made
known to FSDP2: `within`.

All processes have to call a sharded model equally often and in the same order.
"""

import warnings
from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from astarpo.models.fp32_head import Float32Linear
from astarpo.types import UserError

Result = TypeVar("Result")

# What `shard` adds to a model.
_METHOD, _DEVICE = "_run_within", "_computes_on"


def shard(
    model: Any, mesh: Any, dtype: torch.dtype | None = None, *, offload: bool = False
) -> None:
    """Has a model, in place, keep no more of its weights than this process's share.

    Args:
        model: Of transformers, or peft's around one. On every process the same.
        mesh: Of the dimensions `replicate` and `shard`: the processes of one `shard` have one copy
            of the weights together.
        dtype: What autocast computes in, None without autocast. Weights are put together in it,
            while what flows from layer to layer stays in fp32, as under autocast in one process.
            Left to autocast, a copy of every weight would be kept until the backward pass.
        offload: Whether shares are kept in the host's memory; a layer is on the GPU while it runs.

    Raises:
        UserError: It has no layers that can be told apart.
    """
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        OffloadPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    layers, name = _layers(model), type(model).__name__
    precision = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None, cast_forward_inputs=False
    )
    settings: dict[str, Any] = {
        "mesh": mesh if mesh["replicate"].size() > 1 else mesh["shard"],
        "offload_policy": CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
        if offload
        else OffloadPolicy(),
    }
    for layer in layers:
        fully_shard(layer, mp_policy=precision, **settings)
    embedding, head = model.get_input_embeddings(), _head(model)
    if head is None or head.weight is not embedding.weight:
        fully_shard(embedding, mp_policy=precision, **settings)  # else it stays with the head
    keeps_head = isinstance(head, Float32Linear)  # which computes with weights in fp32
    fully_shard(model, mp_policy=MixedPrecisionPolicy() if keeps_head else precision, **settings)
    # Nothing is written in place into what a model returns.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    type(model).__name__ = name  # FSDP2's own name for it says nothing to who reads a message
    if dtype:
        embedding.register_forward_hook(_in_fp32)
    setattr(model, _METHOD, MethodType(_run, model))
    register_fsdp_forward_method(model, _METHOD)
    on_gpu = mesh.device_type == "cuda"
    computes_on = torch.device("cuda", torch.cuda.current_device()) if on_gpu else None
    setattr(model, _DEVICE, computes_on)


def is_sharded(model: Any) -> bool:
    """Whether `shard` was applied to it."""
    return _METHOD in vars(model)


def device_of(model: Any) -> torch.device:
    """Where a model computes, which is where its weights are unless they are offloaded."""
    return vars(model).get(_DEVICE) or model.device


def within(model: Any, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """`function(model, *args, **kwargs)`; a sharded model's weights are at hand where it uses them.

    What it returns is a tensor, or a tuple, list or dictionary of them. A sharded model whose
    gradient is wanted has its weights put together until the backward pass is through.
    """
    if not is_sharded(model):
        return function(model, *args, **kwargs)
    try:
        result = getattr(model, _METHOD)(function, *args, **kwargs)
    except Exception:
        model.reset_iter_state()  # else FSDP2 takes the next call for a part of this one
        raise
    if not torch.is_grad_enabled():
        model.reshard()
    return result


@torch.no_grad()
def settle(model: Any) -> None:
    """Has FSDP2 look which weights of a sharded model are trained, once they all have a value.

    It looks when the model is first used. That may be as the reference, when no adapter is trained.
    """
    within(model, lambda _: torch.zeros(1))


def add_over_copies(model: Any, *, now: bool) -> None:
    """Whether the next backward pass adds up gradients over the copies of a sharded model.

    Where several backward passes make up one gradient, the last one does it for all of them.
    """
    if is_sharded(model):
        model.set_requires_all_reduce(now)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which processes hold parts, put together; all of them have to call this.

    Returns:
        The tensor, on the device that the processes talk by; one that is not shared as it is.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    # Parts may be kept in the host's memory, see `offload`.
    near: Any = tensor.to(tensor.device_mesh.device_type)
    return near.full_tensor()


def _run(model: Any, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    return function(model, *args, **kwargs)


def _layers(model: Any) -> list[GradientCheckpointingLayer]:
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"{type(model).__name__}: no layers were found in it by which to share it among "
            "processes; train it in one process, without torchrun"
        )
    return layers


def _head(model: Any) -> Any:
    head = model.get_output_embeddings()
    return head if isinstance(head, nn.Module) and hasattr(head, "weight") else None


def _in_fp32(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output.float()
