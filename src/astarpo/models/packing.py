"""Sends sequences of different lengths through a model side by side, padded in attention alone.

Everything else in a model looks at one token at a time, so no work there goes into padding. In
attention each sequence has a row of its own, which it fills from column 0 on. Padding comes behind
it, where causal attention never looks, so that no mask is needed.

Shapes: _N tokens of all sequences, _R their response tokens, _B sequences, _W the longest of them,
_K places in all rows, _H heads, _D size of a head, _X size of an output.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from astarpo.models.attention import attending, refuse_states, refuse_unknown
from astarpo.models.batch import Packed, TokenBatch

NAME = "astarpo_packed"


def run_packed(module: Any, batch: TokenBatch) -> Tensor:
    """The first output of a transformers module at the token before each response token: [R, X].

    Raises:
        ValueError: The module does more than let tokens attend to all before them.
    """
    refuse_states(module)
    packed = batch.packed
    position_ids: Any = packed.positions_N[None]
    # Models pass this very tensor to each layer's attention, also when they recompute a layer, so
    # that it can carry the layout there.
    position_ids.packed = packed
    with attending(module, NAME):
        out = module(input_ids=packed.ids_N[None], position_ids=position_ids, use_cache=False)
    return _Collect.apply(out[0][0], packed.before_R)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_ids: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each of the sequences that are packed into one row.

    Called by transformers' models in place of their own attention.

    Args:
        module: The model's layer.
        query: [1, H, N, D].
        key: [1, H, N, D], or fewer heads.
        value: [1, H, N, D] likewise.
        attention_mask: None; a mask that a model makes by itself is refused.
        scaling: Of the scores; 1 / sqrt(D) unless given.
        position_ids: Carries the layout as its attribute `packed`.
        kwargs: Whatever else the model passes.

    Returns:
        [1, N, H, D], and no weights.

    Raises:
        ValueError: Something is passed that may change attention: a mask, a window, a cap, a bias.
    """
    refuse_unknown(kwargs | {"attention_mask": attention_mask})
    packed: Packed = position_ids.packed
    # Under autocast rotary embeddings leave queries and keys in fp32. Rounding them here, as
    # attention would do, halves what is spread.
    rows_BHWD = [
        _Spread.apply(states[0].transpose(0, 1).to(value.dtype), packed.slot_N, packed.token_K)
        .unflatten(0, (packed.num_rows, -1))
        .transpose(1, 2)
        for states in (query, key, value)
    ]
    out_BWHD, _ = sdpa_attention_forward(
        module, *rows_BHWD, attention_mask=None, scaling=scaling, is_causal=True
    )
    return _Collect.apply(out_BWHD.flatten(0, 1), packed.slot_N)[None], None


AttentionInterface.register(NAME, attend)


class _Spread(torch.autograd.Function):
    """Puts the N tokens at their places among the K.

    The other places repeat a token: no token attends to them, and they get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, slot_N: Tensor, token_K: Tensor) -> Tensor:
        ctx.save_for_backward(slot_N)
        return values.index_select(0, token_K)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slot_N,) = ctx.saved_tensors
        return grads[0].index_select(0, slot_N), None, None


class _Collect(torch.autograd.Function):
    """Takes rows by their index. Plain indexing gives the same, but its gradient is slow."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slot_N: Tensor) -> Tensor:
        ctx.save_for_backward(slot_N)
        ctx.num_slots = len(values)
        return values.index_select(0, slot_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slot_N,) = ctx.saved_tensors
        spread = grads[0].new_zeros(ctx.num_slots, *grads[0].shape[1:])
        return spread.index_copy_(0, slot_N, grads[0]), None
