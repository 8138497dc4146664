"""Decoding many completions of few prompts: a prompt's keys and values are held and read once.

Each completion branches off its prompt. What a prompt gave is stored once for all its branches, and
its attention is one matrix product for all of them; each branch adds keys and values of its own, in
a buffer with columns to spare, so that writing a token does not copy those before it.

Shapes: _B branches being decoded, _P prompts, _F most branches of one prompt, _K key-value heads,
_G query heads to one of them, _H all query heads, _L tokens, _D size of a head.
"""

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from astarpo.attention import agree, attending, refuse_unknown

logger = logging.getLogger("astarpo")

_LEAST_ROOM = 16
NAME = "astarpo_branches"
# Prompts without a branch are dropped several at once, since the others have to move.
_DROP_BELOW = 0.9

_fits: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass
class _Plan:
    """Which prompt each branch continues; the same in all layers.

    Attributes:
        fanout: F, most branches of one prompt. With one, prompts are in the order of branches.
        prompt_B: [B] each branch's prompt.
        number_B: [B] its number among those of its prompt.
        bias_P11L: [P, 1, 1, L] -inf on the padding of prompts, else 0.
    """

    fanout: int
    prompt_B: Tensor
    number_B: Tensor
    bias_P11L: Tensor


class _BranchLayer(DynamicLayer):
    """One layer's keys and values: those of prompts, and those of each branch after its prompt."""

    def __init__(self, prompt: Any, plan: _Plan, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.plan = plan
        self._dtype = dtype
        self._prompt_length = prompt.get_seq_length()
        self.prompts = [self._cast(states_PKLD) for states_PKLD in (prompt.keys, prompt.values)]
        self._rows, self._length = len(plan.prompt_B), 0
        self._buffers: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends a token's [B, K, 1, D]; returns those of all the branches' own tokens."""
        new = [self._cast(states_BK1D) for states_BK1D in (key_states, value_states)]
        start, self._length = self._length, self._length + new[0].shape[-2]
        if not self._buffers or self._length > self._buffers[0].shape[-2]:
            self._grow(new)
        for buffer, states_BK1D in zip(self._buffers, new, strict=True):
            buffer[: self._rows, :, start : self._length] = states_BK1D
        keys, values = (buffer[: self._rows, :, : self._length] for buffer in self._buffers)
        keys.branches = self  # `attend` is told nothing else of the cache  # pyrefly: ignore
        return keys, values

    def get_seq_length(self) -> int:
        """Columns of prompt and branch together."""
        return self._prompt_length + self._length

    def keep_branches(self, keep_B: Tensor) -> None:
        """Keeps these, in this order; one already at its place costs nothing."""
        _move(self._buffers, keep_B, self._length)
        self._rows = len(keep_B)

    def keep_prompts(self, keep_P: Tensor) -> None:
        """Keeps these, in this order."""
        _move(self.prompts, keep_P, self._prompt_length)
        self.prompts = [states_PKLD[: len(keep_P)] for states_PKLD in self.prompts]

    def _grow(self, new: list[Tensor]) -> None:
        # By a quarter: memory follows what is generated, not the limit.
        capacity = self._length + max(_LEAST_ROOM, self._length // 4)
        grown = [n.new_empty(self._rows, n.shape[1], capacity, n.shape[3]) for n in new]
        for old, buffer in zip(self._buffers, grown, strict=False):  # none at first
            buffer[:, :, : old.shape[2]] = old[: self._rows]
        self._buffers = grown

    def _cast(self, states: Tensor) -> Tensor:
        return states if self._dtype is None else states.to(self._dtype)


class BranchingCache(Cache):
    """The cache of completions that branch off prompts already read.

    Args:
        prompts: Holds P prompts, padded on the left.
        mask_PL: [P, L] 1 on what is not padding.
        prompt_B: [B] which prompt each completion continues.
        dtype: To store keys and values in, that of attention under autocast; None keeps theirs.
    """

    def __init__(
        self, prompts: DynamicCache, mask_PL: Tensor, prompt_B: Tensor, dtype: torch.dtype | None
    ) -> None:
        self._plan = _plan(mask_PL, prompt_B)
        super().__init__(layers=[_BranchLayer(p, self._plan, dtype) for p in prompts.layers])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these completions, in this order."""
        plan = self._plan
        for layer in self._branch_layers():
            layer.keep_branches(indices)
        plan.prompt_B, plan.number_B = plan.prompt_B[indices], plan.number_B[indices]
        num_prompts = len(plan.bias_P11L)
        place_P = torch.arange(num_prompts, device=indices.device)
        if plan.fanout == 1:
            keep_P = plan.prompt_B
        else:
            alive_P = torch.zeros_like(place_P, dtype=torch.bool)
            alive_P[plan.prompt_B] = True
            num_alive = int(alive_P.sum())
            if num_alive >= _DROP_BELOW * num_prompts:
                return
            keep_P = survivors(alive_P, num_alive)
        for layer in self._branch_layers():
            layer.keep_prompts(keep_P)
        plan.bias_P11L = plan.bias_P11L[keep_P]
        place_P[keep_P] = torch.arange(len(keep_P), device=indices.device)
        plan.prompt_B = place_P[plan.prompt_B]

    def _branch_layers(self) -> list[_BranchLayer]:
        return self.layers  # pyrefly: ignore


def attend(
    module: nn.Module,
    query: Tensor,
    key: Any,
    value: Tensor,
    attention_mask: None,
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
        attention_mask: None: the cache knows what is padding.
        scaling: Of the scores; 1 / sqrt(D) unless given.
        kwargs: What else a model passes.

    Returns:
        [B, 1, H, D], and no weights.

    Raises:
        ValueError: Something is passed that may change attention: a window, a cap, a bias.
    """
    refuse_unknown(kwargs)
    plan, (prompt_key, prompt_value) = key.branches.plan, key.branches.prompts
    rows, heads, length, size = key.shape
    query_BKGD = query.to(key.dtype).reshape(rows, heads, -1, size)
    scores_BKGL = _matmul(query_BKGD, key.transpose(2, 3))
    prompt_PKFL = _matmul(_to_prompts(query_BKGD, plan), prompt_key.transpose(2, 3))
    prompt_PKFL = prompt_PKFL + plan.bias_P11L
    scores_BKGL = torch.cat([_to_branches(prompt_PKFL, plan), scores_BKGL], dim=-1)
    weights_BKGL = (scores_BKGL * (size**-0.5 if scaling is None else scaling)).softmax(dim=-1)
    weights_BKGL = weights_BKGL.to(value.dtype)
    from_prompt, own = weights_BKGL.split([weights_BKGL.shape[-1] - length, length], dim=-1)
    out_PKFD = _matmul(_to_prompts(from_prompt, plan), prompt_value)
    out_BKGD = _to_branches(out_PKFD, plan) + _matmul(own, value)
    return out_BKGD.reshape(rows, 1, -1, value.shape[-1]).to(query.dtype), None


@torch.no_grad()
def branches_fit(model: Any) -> bool:
    """Whether a model decodes with `BranchingCache` as with transformers' own cache.

    It does where all layers attend to all tokens through transformers' attention interface, with
    neither caps nor biases. Two short prompts of two branches each tell, once for each model.
    """
    if model not in _fits:
        try:
            theirs, ours = (_try_out(model, branch=branch) for branch in (False, True))
            _fits[model] = agree(ours, theirs)
        except Exception:  # Models differ in too many ways to foresee how one does not fit.
            _fits[model] = False
        torch.clear_autocast_cache()  # of casts that carry no gradient
        if not _fits[model]:
            logger.info(f"{type(model).__name__}: a prompt is held once for each of its samples")
    return _fits[model]


def survivors(live_B: Tensor, num_live: int) -> Tensor:
    """Indices of the live rows; all but those that fill the gaps of finished ones stay in place."""
    keep = torch.arange(num_live, device=live_B.device)
    keep[~live_B[:num_live]] = num_live + live_B[num_live:].nonzero().squeeze(-1)
    return keep


AttentionInterface.register(NAME, attend)


def _plan(mask_PL: Tensor, prompt_B: Tensor) -> _Plan:
    sorted_B, order_B = prompt_B.sort(stable=True)
    number_B = torch.empty_like(prompt_B)
    place_B = torch.arange(len(prompt_B), device=prompt_B.device)
    number_B[order_B] = place_B - torch.searchsorted(sorted_B, sorted_B)
    fanout = int(number_B.max()) + 1
    assert fanout > 1 or torch.equal(prompt_B, place_B), "one branch each, in another order"
    bias_PL = torch.zeros(mask_PL.shape, device=mask_PL.device)
    bias_PL = bias_PL.masked_fill(mask_PL == 0, -torch.inf)
    return _Plan(fanout, prompt_B, number_B, bias_PL[:, None, None, :])


def _to_prompts(values_BKGX: Tensor, plan: _Plan) -> Tensor:
    """Puts branches' values side by side at their prompt, 0 where one is gone: [P, K, F x G, X]."""
    if plan.fanout == 1:
        return values_BKGX
    heads, groups, width = values_BKGX.shape[1:]
    num_prompts = len(plan.bias_P11L)
    values_PFKGX = values_BKGX.new_zeros(num_prompts, plan.fanout, heads, groups, width)
    values_PFKGX[plan.prompt_B, plan.number_B] = values_BKGX
    return values_PFKGX.transpose(1, 2).reshape(num_prompts, heads, -1, width)


def _to_branches(values_PKFX: Tensor, plan: _Plan) -> Tensor:
    """The reverse of `_to_prompts`: [B, K, G, X]."""
    if plan.fanout == 1:
        return values_PKFX
    num_prompts, heads, _, width = values_PKFX.shape
    values_PFKGX = values_PKFX.view(num_prompts, heads, plan.fanout, -1, width).transpose(1, 2)
    return values_PFKGX[plan.prompt_B, plan.number_B]


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    """Product over the last two of four dimensions; the first two may be views of a buffer."""
    flat = (left.flatten(0, 1), right.flatten(0, 1))
    if left.is_cuda and left.dtype != torch.float32:
        out = torch.bmm(*flat, out_dtype=torch.float32)  # as kernels of attention add up
    else:
        out = torch.bmm(*flat)
    return out.unflatten(0, left.shape[:2])


def _move(buffers: list[Tensor], keep: Tensor, length: int) -> None:
    """Brings rows to the front of buffers in place, in this order."""
    place = torch.arange(len(keep), device=keep.device)
    moved = (keep != place).nonzero().squeeze(-1)
    for buffer in buffers:
        buffer[moved, :, :length] = buffer[keep[moved], :, :length]


def _try_out(model: Any, *, branch: bool) -> Tensor:
    """Logits of the second token after two prompts of unlike length, each continued twice."""
    mask_PL = torch.tensor([[1, 1, 1], [0, 1, 1]], device=model.device)
    ids_PL = torch.tensor([[1, 2, 3], [0, 4, 5]], device=model.device)
    prompt_B = torch.tensor([0, 0, 1, 1], device=model.device)
    cache = DynamicCache(config=model.config)
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        raise ValueError("a layer does not keep all keys and values")
    positions_PL = (mask_PL.cumsum(dim=-1) - 1).clamp(min=0)
    read(model, ids_PL, mask_PL, positions_PL, cache)
    if branch:
        cache = BranchingCache(cache, mask_PL, prompt_B, None)
    else:
        cache.batch_select_indices(prompt_B)
    mask_BL = nn.functional.pad(mask_PL[prompt_B], (0, 2), value=1)
    ids_B = torch.tensor([6, 7, 8, 9], device=model.device)
    with attending(model, NAME) if branch else nullcontext():
        for width in (4, 5):
            positions_B1 = mask_BL[:, :width].sum(dim=-1, keepdim=True) - 1
            logits_BV = read(model, ids_B[:, None], mask_BL[:, :width], positions_B1, cache)
    return logits_BV.float()


def read(model: Any, ids_BL: Tensor, mask_BL: Tensor, position_BL: Tensor, cache: Any) -> Tensor:
    """Reads tokens into a cache; returns the logits after the last of them, [B, V]."""
    return model(
        input_ids=ids_BL,
        attention_mask=mask_BL,
        position_ids=position_BL,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
