"""Attention of completions over their prompts, where the completions of one prompt share it.

Shapes: _B branches being decoded, _P prompts, _F most branches of one prompt, _K key-value heads,
_G query heads to one of them, _H all query heads, _L columns, _D size of a head, _X any size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from astarpo.engines.branching.cache import BranchPlan
from astarpo.models.attention import refuse_unknown

NAME = "astarpo_branches"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Any,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of each branch's newest token over its prompt and its own tokens.

    Called by transformers' models in place of their own attention.

    Args:
        module: The model's layer.
        query: [B, H, 1, D].
        key: [B, K, L, D] the branches' own, as the cache returned it.
        value: [B, K, L, D] likewise.
        attention_mask: None, since the cache knows what is padding; a mask that a model makes for
            itself is refused.
        scaling: Of the scores; 1 / sqrt(D) unless given.
        kwargs: Whatever else the model passes.

    Returns:
        [B, 1, H, D], and no weights.

    Raises:
        ValueError: Something is passed that may change attention: a mask, a window, a cap, a bias.
    """
    refuse_unknown(kwargs | {"attention_mask": attention_mask})
    rows, heads, _, size = key.shape
    query_BKGD = query.to(key.dtype).reshape(rows, heads, -1, size)
    scale = size**-0.5 if scaling is None else scaling
    plan: BranchPlan = key.branches.plan
    prompt_key, prompt_value = key.branches.prompts
    # Products and one softmax: PyTorch's fused attention takes a quarter longer on a CPU.
    prompt_PKFL = _matmul(_to_prompts(query_BKGD, plan), prompt_key.transpose(2, 3))
    prompt_PKFL = prompt_PKFL + plan.prompt_bias_P11L
    own_BKGL = _matmul(query_BKGD, key.transpose(2, 3))
    scores_BKGL = torch.cat([_to_branches(prompt_PKFL, plan), own_BKGL], dim=-1)
    weights_BKGL = (scores_BKGL * scale).softmax(dim=-1).to(value.dtype)
    from_prompt, own = weights_BKGL.tensor_split([prompt_key.shape[2]], dim=-1)
    out_PKFD = _matmul(_to_prompts(from_prompt, plan), prompt_value)
    out_BKGD = _to_branches(out_PKFD, plan) + _matmul(own, value)
    return out_BKGD.reshape(rows, 1, -1, value.shape[-1]).to(query.dtype), None


AttentionInterface.register(NAME, attend)


def _to_prompts(values_BKGX: Tensor, plan: BranchPlan) -> Tensor:
    """Puts the values of a prompt's branches side by side: [P, K, F x G, X].

    There are zeros where a branch has ended.
    """
    if plan.fanout == 1:
        return values_BKGX
    heads, groups, width = values_BKGX.shape[1:]
    num_prompts = len(plan.prompt_bias_P11L)
    values_PFKGX = values_BKGX.new_zeros(num_prompts, plan.fanout, heads, groups, width)
    values_PFKGX[plan.prompt_B, plan.number_B] = values_BKGX
    return values_PFKGX.transpose(1, 2).reshape(num_prompts, heads, -1, width)


def _to_branches(values_PKFX: Tensor, plan: BranchPlan) -> Tensor:
    """The reverse of `_to_prompts`: [B, K, G, X]."""
    if plan.fanout == 1:
        return values_PKFX
    num_prompts, heads, _, width = values_PKFX.shape
    values_PFKGX = values_PKFX.view(num_prompts, heads, plan.fanout, -1, width).transpose(1, 2)
    return values_PFKGX[plan.prompt_B, plan.number_B]


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    """Product over the last two of four dimensions; the first two may be views of a buffer."""
    return torch.bmm(left.flatten(0, 1), right.flatten(0, 1)).unflatten(0, left.shape[:2])
