"""Sequences of unlike length through a model side by side, padded in attention alone.

All else in a model looks at one token at a time, so there no work goes into padding. In attention
each sequence has a row of its own from column 0 on; the causal order keeps what it attends to clear
of the padding behind it, so that no mask is needed.

Shapes: _N tokens of all sequences, _B sequences, _S the longest of them, _T response tokens, _H
heads, _D size of a head, _X size of an output.
"""

import logging
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from astarpo.attention import agree, attending, refuse_unknown
from astarpo.batch import TokenBatch

logger = logging.getLogger("astarpo")

NAME = "astarpo_packed"

_fits: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Layout:
    """Where tokens stand in attention.

    Attributes:
        rows: B.
        width: S.
        slot_N: [N] each token's place among B x S.
    """

    rows: int
    width: int
    slot_N: Tensor


def before_responses(module: Any, batch: TokenBatch) -> Tensor:
    """A module's first output at the token before each response token: [N, X] of these N tokens.

    Args:
        module: A transformers model: a decoder, or one with a head of its own.
        batch: The sequences.
    """
    if not packs_fit(module):
        width = batch.response_ids_BT.shape[1]
        return module(
            input_ids=batch.input_ids_BS,
            attention_mask=batch.attention_mask_BS,
            position_ids=batch.position_ids_BS,
            use_cache=False,
        )[0][:, -width - 1 : -1][batch.mask_BT]
    real_BS = batch.attention_mask_BS.bool()
    asked_BS = torch.zeros_like(real_BS)
    asked_BS[:, -batch.mask_BT.shape[1] - 1 : -1] = batch.mask_BT
    return _run(module, batch)[0][asked_BS[real_BS]]


@torch.no_grad()
def packs_fit(module: Any) -> bool:
    """Whether a module gives the same for packed sequences as for padded ones.

    It does where all layers attend to all tokens before through transformers' attention interface,
    with neither caps nor biases. Two short sequences tell, once for each module.
    """
    if module not in _fits:
        try:
            _fits[module] = _try_out(module)
        except Exception:  # Models differ in too many ways to foresee how one does not fit.
            _fits[module] = False
        torch.clear_autocast_cache()  # of casts that carry no gradient
        if not _fits[module]:
            logger.info(f"{type(module).__name__}: sequences are padded to a common length")
    return _fits[module]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
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
        attention_mask: None.
        scaling: Of the scores; 1 / sqrt(D) unless given.
        position_ids: Carries the layout.
        kwargs: What else a model passes.

    Returns:
        [1, N, H, D], and no weights.

    Raises:
        ValueError: Something is passed that may change attention: a window, a cap, a bias.
    """
    refuse_unknown(kwargs)
    layout: _Layout = position_ids.packing
    rows_BHSD = [
        _Spread.apply(states[0].transpose(0, 1), layout.slot_N, layout.rows * layout.width)
        .unflatten(0, (layout.rows, layout.width))
        .transpose(1, 2)
        for states in (query, key, value)
    ]
    out_BSHD, _ = sdpa_attention_forward(
        module, *rows_BHSD, attention_mask=None, scaling=scaling, is_causal=True
    )
    return _Collect.apply(out_BSHD.flatten(0, 1), layout.slot_N)[None], None


AttentionInterface.register(NAME, attend)


class _Spread(torch.autograd.Function):
    """Puts rows at their slots among zeros; indexing would do, but its gradient is slow."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slot_N: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slot_N)
        spread = values.new_zeros(size, *values.shape[1:])
        spread[slot_N] = values
        return spread

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slot_N,) = ctx.saved_tensors
        return grads[0][slot_N], None, None


class _Collect(torch.autograd.Function):
    """Takes rows from their slots: the reverse of `_Spread`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slot_N: Tensor) -> Tensor:
        ctx.save_for_backward(slot_N)
        ctx.size = len(values)
        return values[slot_N]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slot_N,) = ctx.saved_tensors
        spread = grads[0].new_zeros(ctx.size, *grads[0].shape[1:])
        spread[slot_N] = grads[0]
        return spread, None


def _run(module: Any, batch: TokenBatch) -> Tensor:
    """A module's first output for all tokens that are no padding: [1, N, X]."""
    real_BS = batch.attention_mask_BS.bool()
    lengths_B = real_BS.sum(dim=-1)
    width = int(lengths_B.max())
    positions_N = batch.position_ids_BS[real_BS]
    row_N = torch.arange(len(real_BS), device=real_BS.device).repeat_interleave(lengths_B)
    position_ids: Any = positions_N[None]
    # Models hand it to each layer's attention as it is, also when they compute a layer again.
    position_ids.packing = _Layout(len(real_BS), width, row_N * width + positions_N)
    with attending(module, NAME):
        return module(
            input_ids=batch.input_ids_BS[real_BS][None],
            position_ids=position_ids,
            use_cache=False,
        )[0]


def _try_out(module: Any) -> bool:
    mask_BS = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1]], device=module.device)
    ids_BS = torch.tensor([[0, 1, 2, 3, 0], [4, 5, 6, 7, 8]], device=module.device)
    batch = TokenBatch(
        input_ids_BS=ids_BS,
        attention_mask_BS=mask_BS,
        position_ids_BS=(mask_BS.cumsum(dim=-1) - 1).clamp(min=0),
        response_ids_BT=ids_BS,
        mask_BT=mask_BS.bool(),
    )
    padded_NX = module(
        input_ids=batch.input_ids_BS,
        attention_mask=batch.attention_mask_BS,
        position_ids=batch.position_ids_BS,
        use_cache=False,
    )[0][batch.mask_BT].float()
    packed_NX = _run(module, batch)[0].float()
    return agree(packed_NX, padded_NX)
