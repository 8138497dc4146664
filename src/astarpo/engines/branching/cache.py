"""A cache for many completions of few prompts: a prompt's keys and values are held once.

Each completion is a branch of its prompt. The keys and values of a prompt are stored once for all
its branches. Each branch stores those of its own tokens in a buffer with columns to spare, so that
writing a token does not copy the ones before it.

Shapes: _B branches being decoded, _P prompts, _K key-value heads, _L columns of prompts, _C columns
of a buffer, _D size of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

# Prompts whose branches have all ended are dropped once less than this share is left: dropping them
# moves others, so it is done for several at once.
_DROP_BELOW = 0.9
# Added to the scores of padding. Finite, since a softmax over nothing but -inf would give nan.
_HIDDEN = -1e30
# Columns that a branch's buffer grows by at least.
_LEAST_GROWTH = 16


@dataclass
class BranchPlan:
    """The part of the cache that is the same in all layers.

    Attributes:
        fanout: F, the most branches that a prompt has. With one each, prompts are in the order of
            their branches.
        prompt_B: [B] each branch's prompt.
        number_B: [B] its number among those of its prompt.
        prompt_bias_P11L: [P, 1, 1, L] added to scores, so that the padding of prompts is not seen.
        length: Columns of the branches' own tokens, the newest included.
        capacity: C, the columns that the buffers have.
    """

    fanout: int
    prompt_B: Tensor
    number_B: Tensor
    prompt_bias_P11L: Tensor
    length: int = 0
    capacity: int = 0

    def open_column(self) -> bool:
        """Counts one more column; returns whether the capacity had to grow."""
        self.length += 1
        grows = self.length > self.capacity
        if grows:  # by a quarter: memory follows what is generated, not the limit
            self.capacity = self.length + max(_LEAST_GROWTH, self.length // 4)
        return grows


class _BranchLayer(DynamicLayer):
    """One layer's keys and values: those of prompts, and those of each branch after its prompt."""

    def __init__(self, prompt: Any, plan: BranchPlan, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.plan = plan
        self.prompts = [
            states_PKLD if dtype is None else states_PKLD.to(dtype)
            for states_PKLD in (prompt.keys, prompt.values)
        ]
        self._prompt_length = prompt.get_seq_length()
        self._rows = len(plan.prompt_B)
        self._buffers = [self._columns(states_PKLD, 0) for states_PKLD in self.prompts]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores a token's keys and values, [B, K, 1, D]; returns those of all own tokens."""
        plan, seen = self.plan, []
        for buffer, states_BK1D in zip(self._buffers, (key_states, value_states), strict=True):
            own_BKLD = buffer[: self._rows, :, : plan.length]
            own_BKLD[:, :, -1:] = states_BK1D
            seen.append(own_BKLD)
        keys, values = seen
        keys.branches = self  # the only way to `attend`, which gets no cache  # pyrefly: ignore
        return keys, values

    def get_seq_length(self) -> int:
        """Columns of prompt and branch before the newest token."""
        return self._prompt_length + max(0, self.plan.length - 1)

    def grow(self) -> None:
        """Makes room for as many columns as the plan says."""
        grown = []
        for old, prompt_PKLD in zip(self._buffers, self.prompts, strict=True):
            new = self._columns(prompt_PKLD, self.plan.capacity)
            new[:, :, : old.shape[2]] = old[: self._rows]
            grown.append(new)
        self._buffers = grown

    def _columns(self, prompt_PKLD: Tensor, count: int) -> Tensor:
        """Columns for every branch, [B, K, C, D]."""
        _, heads, _, size = prompt_PKLD.shape
        return prompt_PKLD.new_empty(self._rows, heads, count, size)

    def keep_branches(self, place: Tensor, source: Tensor, rows: int) -> None:
        """Moves these branches, and keeps so many from the front."""
        _move(self._buffers, place, source, self.plan.length)
        self._rows = rows

    def keep_prompts(self, place: Tensor, source: Tensor, rows: int) -> None:
        """Moves these prompts, and keeps so many from the front."""
        _move(self.prompts, place, source, self._prompt_length)
        self.prompts = [states_PKLD[:rows] for states_PKLD in self.prompts]


class BranchingCache(Cache):
    """The cache of completions that branch off prompts already read.

    Call `open_column` before each token is read.

    Args:
        prompts: Holds P prompts, padded on the left.
        mask_PL: [P, L] 1 on what is not padding.
        prompt_B: [B] which prompt each completion continues.
        dtype: To store keys and values in, that of attention under autocast; None keeps theirs.
    """

    def __init__(
        self, prompts: DynamicCache, mask_PL: Tensor, prompt_B: Tensor, dtype: torch.dtype | None
    ) -> None:
        first: Any = prompts.layers[0]
        self._plan = _make_plan(mask_PL, prompt_B, dtype or first.keys.dtype)
        super().__init__(layers=[_BranchLayer(p, self._plan, dtype) for p in prompts.layers])

    def open_column(self) -> None:
        """Makes room for each branch's next token."""
        if self._plan.open_column():
            for layer in self._branch_layers():
                layer.grow()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these completions, in this order; one that is at its place already is not moved."""
        plan = self._plan
        moves = _moves(indices)
        for layer in self._branch_layers():
            layer.keep_branches(*moves, len(indices))
        plan.prompt_B, plan.number_B = plan.prompt_B[indices], plan.number_B[indices]
        num_prompts = len(plan.prompt_bias_P11L)
        place_P = torch.arange(num_prompts, device=indices.device)
        if plan.fanout == 1:
            keep_P = indices
        else:
            alive_P = torch.zeros_like(place_P, dtype=torch.bool)
            alive_P[plan.prompt_B] = True
            num_alive = int(alive_P.sum())
            if num_alive >= _DROP_BELOW * num_prompts:
                return
            keep_P = survivors(alive_P, num_alive)
        moves = _moves(keep_P)
        for layer in self._branch_layers():
            layer.keep_prompts(*moves, len(keep_P))
        plan.prompt_bias_P11L = plan.prompt_bias_P11L[keep_P]
        place_P[keep_P] = torch.arange(len(keep_P), device=indices.device)
        plan.prompt_B = place_P[plan.prompt_B]

    def _branch_layers(self) -> list[_BranchLayer]:
        return self.layers  # pyrefly: ignore


def survivors(live_B: Tensor, num_live: int) -> Tensor:
    """Indices of the live rows, of which only those move that fill the gaps of finished ones."""
    keep = torch.arange(num_live, device=live_B.device)
    keep[~live_B[:num_live]] = num_live + live_B[num_live:].nonzero().squeeze(-1)
    return keep


def _make_plan(mask_PL: Tensor, prompt_B: Tensor, dtype: torch.dtype) -> BranchPlan:
    sorted_B, order_B = prompt_B.sort(stable=True)
    number_B = torch.empty_like(prompt_B)
    place_B = torch.arange(len(prompt_B), device=prompt_B.device)
    number_B[order_B] = place_B - torch.searchsorted(sorted_B, sorted_B)
    fanout = int(number_B.max()) + 1
    assert fanout > 1 or torch.equal(prompt_B, place_B), "one branch each, in another order"
    bias_PL = torch.zeros(mask_PL.shape, dtype=dtype, device=mask_PL.device)
    bias_PL.masked_fill_(mask_PL == 0, _HIDDEN)
    return BranchPlan(fanout, prompt_B, number_B, bias_PL[:, None, None, :])


def _moves(keep: Tensor) -> tuple[Tensor, Tensor]:
    """The places whose row has to be moved there, and where that row is now."""
    place = (keep != torch.arange(len(keep), device=keep.device)).nonzero().squeeze(-1)
    return place, keep[place]


def _move(buffers: list[Tensor], place: Tensor, source: Tensor, length: int) -> None:
    """Moves rows to their places in buffers."""
    for buffer in buffers:
        buffer[place, :, :length] = buffer[source, :, :length]
