"""Decoding many completions of few prompts: a prompt's keys and values are held and read once.

Each completion branches off its prompt. What a prompt gave is stored once for all its branches, and
they attend to it together; each branch adds keys and values of its own, in a buffer with columns to
spare, so that writing a token does not copy those before it.

Shapes: _B branches being decoded, _P prompts, _F most branches of one prompt, _K key-value heads,
_G query heads to one of them, _H all query heads, _L tokens, _C columns of a buffer, _D size of a
head.
"""

import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from astarpo.attention import agree, attending, refuse_unknown
from astarpo.engines.replay import Replay

logger = logging.getLogger("astarpo")

NAME = "astarpo_branches"
# Prompts without a branch are dropped several at once, since the others have to move.
_DROP_BELOW = 0.9
# Added to the scores of what must not be seen. Finite: a block of nothing else would give nan.
_HIDDEN = -1e30
# CUDA's kernel wants biases whose rows begin at a multiple of 16.
_ALIGNED = 16
# Tokens decoded to try a model out: one to warm up, one to record, two to replay.
_TRIED = 4

Way = Literal["recorded", "stepwise"]

_fits: WeakKeyDictionary[nn.Module, Way | None] = WeakKeyDictionary()


@dataclass
class _Plan:
    """What is the same in all layers.

    Attributes:
        fanout: F, most branches of one prompt. With one, prompts are in the order of branches.
        prompt_B: [B] each branch's prompt.
        number_B: [B] its number among those of its prompt.
        prompt_bias_P11L: [P, 1, 1, L or more] what hides the padding of prompts.
        fixed: Whether shapes stay the same from token to token, see `BranchingCache`.
        length: Columns that branches have of their own, the newest token's included.
        capacity: C, columns that there is memory for.
        column_1: [1] the newest token's column.
        own_bias_111C: [1, 1, 1, C] what hides columns that are not written yet.
    """

    fanout: int
    prompt_B: Tensor
    number_B: Tensor
    prompt_bias_P11L: Tensor
    fixed: bool
    length: int = 0
    capacity: int = 0
    column_1: Tensor = field(init=False)
    own_bias_111C: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.column_1 = torch.zeros_like(self.prompt_B[:1])
        self.own_bias_111C = self.prompt_bias_P11L.new_empty(0)

    def open_column(self) -> bool:
        """Counts one more column; returns whether the capacity had to grow."""
        self.length += 1
        grows = self.length > self.capacity
        if grows:
            # By a quarter: memory follows what is generated, not the limit. Where shapes are
            # fixed, each growth costs a recording.
            least = 4 * _ALIGNED if self.fixed else _ALIGNED
            self.capacity = _aligned(self.length + max(least - 1, self.length // 4))
            if self.fixed:
                bias_C = self.prompt_bias_P11L.new_full((self.capacity,), _HIDDEN)
                bias_C[: self.length] = 0
                self.own_bias_111C = bias_C[None, None, None]
        if self.fixed:
            self.column_1.fill_(self.length - 1)
            self.own_bias_111C[..., self.length - 1] = 0
        return grows


class _BranchLayer(DynamicLayer):
    """One layer's keys and values: those of prompts, and those of each branch after its prompt."""

    def __init__(self, prompt: Any, plan: _Plan, dtype: torch.dtype | None) -> None:
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
        """Writes a token's [B, K, 1, D]; returns those of all the branches' own tokens."""
        plan, seen = self.plan, []
        for buffer, states_BK1D in zip(self._buffers, (key_states, value_states), strict=True):
            own_BKCD = buffer[: self._rows]
            if plan.fixed:
                own_BKCD.index_copy_(2, plan.column_1, states_BK1D.to(buffer.dtype))
            else:
                own_BKCD = own_BKCD[:, :, : plan.length]
                own_BKCD[:, :, -1:] = states_BK1D
            seen.append(own_BKCD)
        keys, values = seen
        keys.branches = self  # `attend` is told nothing else of the cache  # pyrefly: ignore
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
        # Zeros: what is hidden has no weight, but nan times no weight is nan.
        return prompt_PKLD.new_zeros(self._rows, heads, count, size)

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
        fixed: Whether attention always spans all columns there is memory for, in fused kernels, so
            that a CUDA graph can hold it: the same shapes from token to token.
    """

    def __init__(
        self,
        prompts: DynamicCache,
        mask_PL: Tensor,
        prompt_B: Tensor,
        dtype: torch.dtype | None,
        *,
        fixed: bool,
    ) -> None:
        first: Any = prompts.layers[0]
        self._plan = _plan(mask_PL, prompt_B, dtype or first.keys.dtype, fixed=fixed)
        super().__init__(layers=[_BranchLayer(p, self._plan, dtype) for p in prompts.layers])

    def open_column(self) -> bool:
        """Makes room for each branch's next token.

        Returns:
            Whether memory moved for it: what was recorded over the old one is void.
        """
        grows = self._plan.open_column()
        if grows:
            for layer in self._branch_layers():
                layer.grow()
        return grows

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these completions, in this order; one already at its place costs nothing."""
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
    plan: _Plan = key.branches.plan
    rows, heads, _, size = key.shape
    query_BKGD = query.to(key.dtype).reshape(rows, heads, -1, size)
    over = _over_both_fused if plan.fixed else _over_both
    scale = size**-0.5 if scaling is None else scaling
    out_BKGD = over(query_BKGD, key, value, key.branches.prompts, plan, scale)
    return out_BKGD.reshape(rows, 1, -1, value.shape[-1]).to(query.dtype), None


AttentionInterface.register(NAME, attend)


@torch.no_grad()
def branches_fit(model: Any, dtype: torch.dtype | None) -> Way | None:
    """How a model decodes with `BranchingCache` as it does with transformers' own cache.

    It can where all layers attend to all tokens through transformers' attention interface, with
    neither caps nor biases. Two short prompts of two branches each tell, once for each model.

    Args:
        model: A transformers causal language model.
        dtype: Of cached keys and values, see `BranchingCache`.

    Returns:
        `recorded` where a step of it can be replayed as a CUDA graph, `stepwise` where it cannot,
        None where another cache is needed.
    """
    if model not in _fits:
        _fits[model] = None
        theirs = _try_out(model, dtype, None)
        ways: list[Way] = ["recorded", "stepwise"] if model.device.type == "cuda" else ["stepwise"]
        for way in ways:
            try:
                fits = agree(_try_out(model, dtype, way), theirs)
            except Exception:  # Models differ in too many ways to foresee how one does not fit.
                fits = False
            torch.clear_autocast_cache()  # of casts that carry no gradient
            if fits:
                _fits[model] = way
                break
            logger.info(f"{type(model).__name__}: {_WITHOUT[way]}")
    return _fits[model]


_WITHOUT: dict[Way, str] = {
    "recorded": "decoding steps are not recorded as CUDA graphs",
    "stepwise": "a prompt is held once for each of its samples",
}


def survivors(live_B: Tensor, num_live: int) -> Tensor:
    """Indices of the live rows; all but those that fill the gaps of finished ones stay in place."""
    keep = torch.arange(num_live, device=live_B.device)
    keep[~live_B[:num_live]] = num_live + live_B[num_live:].nonzero().squeeze(-1)
    return keep


def read(
    model: Any, ids_BL: Tensor, mask_BL: Tensor | None, position_BL: Tensor, cache: Any
) -> Tensor:
    """Reads tokens into a cache; returns the logits after the last of them, [B, V].

    Args:
        model: A transformers causal language model.
        ids_BL: [B, L] the tokens.
        mask_BL: [B, L of cache and tokens] 1 on what is not padding; None if the cache knows.
        position_BL: [B, L].
        cache: What came before; grows.
    """
    return model(
        input_ids=ids_BL,
        attention_mask=mask_BL,
        position_ids=position_BL,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]


def _plan(mask_PL: Tensor, prompt_B: Tensor, dtype: torch.dtype, *, fixed: bool) -> _Plan:
    sorted_B, order_B = prompt_B.sort(stable=True)
    number_B = torch.empty_like(prompt_B)
    place_B = torch.arange(len(prompt_B), device=prompt_B.device)
    number_B[order_B] = place_B - torch.searchsorted(sorted_B, sorted_B)
    fanout = int(number_B.max()) + 1
    assert fanout > 1 or torch.equal(prompt_B, place_B), "one branch each, in another order"
    prompts, length = mask_PL.shape
    bias_PL = torch.zeros(prompts, _aligned(length), dtype=dtype, device=mask_PL.device)
    bias_PL[:, :length].masked_fill_(mask_PL == 0, _HIDDEN)
    return _Plan(fanout, prompt_B, number_B, bias_PL[:, None, None, :], fixed)


def _aligned(columns: int) -> int:
    return -(-columns // _ALIGNED) * _ALIGNED


def _over_both(
    query_BKGD: Tensor, key: Tensor, value: Tensor, prompts: list[Tensor], plan: _Plan, scale: float
) -> Tensor:
    """Attention by products and one softmax, the faster way on a CPU: [B, K, G, D]."""
    prompt_key, prompt_value = prompts
    length = prompt_key.shape[2]
    prompt_PKFL = _matmul(_to_prompts(query_BKGD, plan), prompt_key.transpose(2, 3))
    prompt_PKFL = prompt_PKFL + plan.prompt_bias_P11L[..., :length]
    own_BKGL = _matmul(query_BKGD, key.transpose(2, 3))
    scores_BKGL = torch.cat([_to_branches(prompt_PKFL, plan), own_BKGL], dim=-1)
    weights_BKGL = (scores_BKGL * scale).softmax(dim=-1).to(value.dtype)
    from_prompt, own = weights_BKGL.tensor_split([length], dim=-1)
    out_PKFD = _matmul(_to_prompts(from_prompt, plan), prompt_value)
    return _to_branches(out_PKFD, plan) + _matmul(own, value)


def _over_both_fused(
    query_BKGD: Tensor, key: Tensor, value: Tensor, prompts: list[Tensor], plan: _Plan, scale: float
) -> Tensor:
    """Attention by fused kernels, which read keys and values once: [B, K, G, D].

    They give the logarithm of their softmax's normaliser Z. With it attention over both follows:

        softmax over both = s own + (1 - s) prompt,  s = sigmoid(log Z_own - log Z_prompt)
    """
    own_BKGD, own_norm_BKG = _fused(query_BKGD, key, value, plan.own_bias_111C, scale)
    prompt_PKFD, prompt_norm_PKF = _fused(
        _to_prompts(query_BKGD, plan), *prompts, bias=plan.prompt_bias_P11L, scale=scale
    )
    prompt_norm_BKG1 = _to_branches(prompt_norm_PKF[..., None], plan)
    own_share_BKG1 = (own_norm_BKG[..., None] - prompt_norm_BKG1).sigmoid()
    prompt_BKGD = _to_branches(prompt_PKFD, plan)
    return torch.lerp(prompt_BKGD.float(), own_BKGD.float(), own_share_BKG1)


def _fused(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of X queries to each key-value head, and its normalisers' logarithms.

    Args:
        query: [B, K, X, D].
        key: [B, K, L, D].
        value: [B, K, L, D].
        bias: [B or 1, 1, 1, L or more], added to the scores.
        scale: Of the scores.

    Returns:
        [B, K, X, D] and [B, K, X].
    """
    bias = bias[..., : key.shape[2]].expand(*query.shape[:3], -1)
    if query.is_cuda:
        out, norm, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, compute_log_sumexp=True, scale=scale
        )
        return out, norm[..., : query.shape[2]]  # which comes padded
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=bias, scale=scale
    )


def _to_prompts(values_BKGX: Tensor, plan: _Plan) -> Tensor:
    """Puts branches' values side by side at their prompt, 0 where one is gone: [P, K, F x G, X]."""
    if plan.fanout == 1:
        return values_BKGX
    heads, groups, width = values_BKGX.shape[1:]
    num_prompts = len(plan.prompt_bias_P11L)
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


def _moves(keep: Tensor) -> tuple[Tensor, Tensor]:
    """Places whose row is not theirs yet, and where it is now."""
    place = (keep != torch.arange(len(keep), device=keep.device)).nonzero().squeeze(-1)
    return place, keep[place]


def _move(buffers: list[Tensor], place: Tensor, source: Tensor, length: int) -> None:
    """Brings rows to their places in buffers."""
    for buffer in buffers:
        buffer[place, :, :length] = buffer[source, :, :length]


def _try_out(model: Any, dtype: torch.dtype | None, way: Way | None) -> Tensor:
    """Logits of the last of some tokens after two prompts of unlike length, each continued twice.

    Args:
        model: The model.
        dtype: Of cached keys and values.
        way: How to decode; None takes transformers' own cache.
    """
    mask_PL = torch.tensor([[1, 1, 1], [0, 1, 1]], device=model.device)
    ids_PL = torch.tensor([[1, 2, 3], [0, 4, 5]], device=model.device)
    prompt_B = torch.tensor([0, 0, 1, 1], device=model.device)
    ids_B1 = torch.tensor([[6], [7], [8], [9]], device=model.device)
    cache: Any = DynamicCache(config=model.config)
    positions_PL = (mask_PL.cumsum(dim=-1) - 1).clamp(min=0)
    logits_BV = read(model, ids_PL, mask_PL, positions_PL, cache)[prompt_B]
    mask_BL = nn.functional.pad(mask_PL[prompt_B], (0, _TRIED), value=1)
    position_B1 = mask_PL.sum(dim=-1, keepdim=True)[prompt_B]
    if way is None:
        cache.batch_select_indices(prompt_B)
    elif any(type(layer) is not DynamicLayer for layer in cache.layers):
        raise ValueError("a layer does not keep all keys and values")
    else:
        cache = BranchingCache(cache, mask_PL, prompt_B, dtype, fixed=way == "recorded")

    def step() -> None:
        seen_BL = None if way else mask_BL[:, : cache.get_seq_length() + 1]
        logits_BV.copy_(read(model, ids_B1, seen_BL, position_B1, cache))
        position_B1.add_(1)

    advance = Replay(step, record=way == "recorded")
    with attending(model, NAME) if way else nullcontext():
        for _ in range(_TRIED):
            if way and cache.open_column():
                advance.renew()
            advance()
    return logits_BV.float()
