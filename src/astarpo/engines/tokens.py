"""Drawing tokens from logits.

Shapes: _B rows, _V vocabulary, _N blocks of the vocabulary, _C tokens of a block.
"""

import torch
from torch import Tensor

from astarpo.engines.base import Sampling

# Tokens of a block. In a large vocabulary a draw first finds its block, by the blocks' sums: adding
# up all tokens in order takes about three times as long.
_BLOCK = 1024


def choose_tokens(
    logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Draws one token a row by inverting the cumulative distribution.

    Nothing here waits for the device.

    Args:
        logits_BV: [B, V].
        uniform_B: [B] numbers in [0, 1), one draw each.
        sampling: Temperature 0 takes the most likely token (and scores it at temperature 1).

    Returns:
        [B] token ids and [B] log-probs under the distribution drawn from.
    """
    if sampling.temperature not in (0, 1):
        logits_BV = logits_BV.float() / sampling.temperature
    probs_BV = logits_BV.softmax(dim=-1, dtype=torch.float32)
    if sampling.temperature == 0:
        token_B = logits_BV.argmax(dim=-1)
    else:
        if sampling.top_p < 1:
            probs_BV = _keep_nucleus(probs_BV, sampling.top_p)
        token_B = _invert(probs_BV, uniform_B)
    return token_B, _gather(probs_BV, token_B).log()


def _invert(probs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The first token at which the cumulative distribution exceeds the draw: [B]."""
    vocabulary = probs_BV.shape[1]
    if vocabulary <= _BLOCK:
        upto_BV = probs_BV.cumsum(dim=-1)
        return _first_beyond(upto_BV, uniform_B * upto_BV[:, -1])[0]
    blocks, rest = divmod(vocabulary, _BLOCK)
    whole_BV, rest_BV = probs_BV.split([vocabulary - rest, rest], dim=-1)
    sums_BN = whole_BV.unflatten(-1, (blocks, _BLOCK)).sum(dim=-1)
    sums_BN = torch.cat([sums_BN, rest_BV.sum(dim=-1, keepdim=True)], dim=-1)
    upto_BN = sums_BN.cumsum(dim=-1)
    block_B, threshold_B = _first_beyond(upto_BN, uniform_B * upto_BN[:, -1])
    threshold_B = threshold_B - _gather(upto_BN - sums_BN, block_B)

    column_C = torch.arange(_BLOCK, device=probs_BV.device)
    column_BC = block_B[:, None] * _BLOCK + column_C
    inside_BC = probs_BV.gather(-1, column_BC.clamp(max=vocabulary - 1))
    inside_BC = inside_BC.masked_fill(column_BC >= vocabulary, 0.0)
    place_B, _ = _first_beyond(inside_BC.cumsum(dim=-1), threshold_B)
    return block_B * _BLOCK + place_B


def _first_beyond(upto_BN: Tensor, threshold_B: Tensor) -> tuple[Tensor, Tensor]:
    """The first place where sums exceed a threshold, and the threshold.

    It is lowered to just below the total where rounding has carried it there: no sum exceeds that.
    """
    total_B = upto_BN[:, -1]
    threshold_B = torch.minimum(threshold_B, total_B.nextafter(torch.zeros_like(total_B)))
    first_B = torch.searchsorted(upto_BN, threshold_B[:, None], right=True).squeeze(-1)
    return first_B, threshold_B


def _keep_nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest most likely tokens whose mass reaches top_p, and renormalises."""
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
    mass_before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    dropped_BV = torch.zeros_like(mass_before_BV, dtype=torch.bool)
    dropped_BV.scatter_(-1, order_BV, mass_before_BV >= top_p)
    kept_BV = probs_BV.masked_fill(dropped_BV, 0.0)
    return kept_BV / kept_BV.sum(dim=-1, keepdim=True)


def _gather(values_BV: Tensor, token_B: Tensor) -> Tensor:
    return values_BV.gather(-1, token_B[:, None]).squeeze(-1)
