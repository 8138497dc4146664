"""Which way of decoding gives a model's own log-probs, found out by trying.

Shapes: _P prompts, _L their columns, _B continuations of them, _T their tokens, _V vocabulary.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from astarpo.engines.branching.attention import NAME
from astarpo.engines.branching.cache import BranchingCache
from astarpo.models.agreement import first_fitting, gap, reach
from astarpo.models.attention import attending, refuse_states
from astarpo.models.batch import collate
from astarpo.models.logprobs import logprobs_alone
from astarpo.models.policy import Policy
from astarpo.types import UserError

logger = logging.getLogger("astarpo")

# Tokens decoded to try a model out: enough that the last ones attend to some of their own.
_TRIED = 4

DecodingWay = Literal["stepwise", "cached", "generate", "generate_alike"]
"""Our own loop with our cache, or with transformers'; transformers' `generate`, all prompts
together or those of one length at a time."""

_OWN: list[DecodingWay] = ["stepwise", "cached"]

_INSTEAD: dict[DecodingWay, str] = {
    "stepwise": "a prompt is held once for each of its samples",
    "cached": "it is sampled from by transformers' generate, which is slower",
    "generate": "it is sampled from by transformers' generate, one length of prompt at a time, "
    "which is slower",
}


@dataclass
class Plan:
    """How to decode a model's completions of some length.

    Attributes:
        name: The model's class.
        ways: Those that are not ruled out, the fastest first.
        proven: The longest sequence whose log-probs have been compared with a forward pass.
    """

    name: str
    ways: list[DecodingWay]
    proven: int = 0

    def rule_out(self, reason: str) -> None:
        """Drops the way in use for the next one, with a warning, or refuses the model."""
        way = self.ways.pop(0)
        if not self.ways:
            raise UserError(
                f"{self.name}: cannot be sampled from: decoding by {way} {reason}, and the faster "
                "ways do not agree with one either; take another model"
            )
        logger.warning(f"{self.name}: decoding by {way} {reason}; {_INSTEAD[way]}")


_plans: WeakKeyDictionary[nn.Module, dict[tuple[int, bool], Plan]] = WeakKeyDictionary()


def make_plan(
    policy: Policy, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, *, own_loop: bool
) -> Plan:
    """How to decode a policy, found out once for each order of magnitude of length.

    Args:
        policy: The model, and the dtype of cached keys and values.
        prompts: The model is tried out on the shortest and the longest.
        max_new_tokens: Limit of a response.
        own_loop: Whether to try our own loop at all.
    """
    model = policy.model
    plans = _plans.setdefault(model, {})
    length = reach(model, max(map(len, prompts)) + max_new_tokens)
    if (length, own_loop) not in plans:
        ways: list[DecodingWay] = ["generate", "generate_alike"]
        if own_loop:
            way = own_way(model, policy.autocast_dtype, prompts, length)
            ways = [*(_OWN[_OWN.index(way) :] if way else []), *ways]
            torch.clear_autocast_cache()  # its casts were made without gradients
        plans[length, own_loop] = Plan(type(model).__name__, ways)
    return plans[length, own_loop]


@torch.no_grad()
def own_way(
    model: Any, dtype: torch.dtype | None, prompts: Sequence[tuple[int, ...]], length: int
) -> DecodingWay | None:
    """The fastest way of our own loop that gives the log-probs of a forward pass, if there is one.

    Args:
        model: A transformers causal language model.
        dtype: That of cached keys and values, see `BranchingCache`.
        prompts: The longest, repeated, and the shortest are each continued twice.
        length: The length of the longest sequence to try out.
    """
    longest, shortest = max(prompts, key=len), min(prompts, key=len)
    stretched = (longest * (length // len(longest) + 1))[: length - _TRIED - 1]
    few = [stretched, shortest]
    tokens = stretched * 2 + longest * _TRIED
    rows = [tokens[row : row + _TRIED + 1] for row in range(4)]
    batch = collate([stretched, stretched, shortest, shortest], rows, 0, model.device)
    theirs_R = logprobs_alone(model, batch, 1.0)

    def apart(way: DecodingWay) -> float:
        ours_BT = _try_out(model, dtype, few, batch.response_ids_BT, way)
        return gap(ours_BT.flatten(), theirs_R, [_TRIED + 1] * 4)

    ways = {way: _INSTEAD[way] for way in _OWN}
    misfit = "gives log-probs {} nats a token from a forward pass"
    return first_fitting(model, ways, apart, "decoding by {}", misfit)


def read(
    model: Any, ids_BL: Tensor, mask_BL: Tensor | None, position_BL: Tensor, cache: Any
) -> Tensor:
    """Reads tokens into a cache; returns the logits after the last of them, [B, V].

    The mask is of the cache's tokens and the new ones, 1 on what is not padding; None if the cache
    knows it.
    """
    return model(
        input_ids=ids_BL,
        attention_mask=mask_BL,
        position_ids=position_BL,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]


def branch_off(
    cache: Any, mask_PL: Tensor, prompt_B: Tensor, dtype: torch.dtype | None, way: DecodingWay
) -> Any:
    """Turns transformers' cache of P prompts into one of B continuations, for our own loop."""
    if way == "stepwise":
        return BranchingCache(cache, mask_PL, prompt_B, dtype)
    cache.batch_select_indices(prompt_B)
    return cache


def read_next(model: Any, ids_B: Tensor, mask_BL: Tensor, position_B: Tensor, cache: Any) -> Tensor:
    """Reads the next token of each row into a cache of `branch_off`; returns its logits, [B, V]."""
    if isinstance(cache, BranchingCache):
        cache.open_column()
        seen_BL = None
    else:
        seen_BL = mask_BL[:, : cache.get_seq_length() + 1]
    return read(model, ids_B[:, None], seen_BL, position_B[:, None], cache)


def _try_out(
    model: Any,
    dtype: torch.dtype | None,
    prompts: Sequence[tuple[int, ...]],
    chosen_BT: Tensor,
    way: DecodingWay,
) -> Tensor:
    """Log-probs of given tokens after prompts, each continued twice: [B, T]."""
    batch = collate(prompts, [()] * len(prompts), 0, model.device)
    mask_PL = batch.attention_mask_BS
    prompt_B = torch.arange(len(prompts), device=model.device).repeat_interleave(2)
    cache: Any = DynamicCache(config=model.config)
    logits_BV = read(model, batch.input_ids_BS, mask_PL, batch.position_ids_BS, cache)[prompt_B]
    mask_BL = nn.functional.pad(mask_PL[prompt_B], (0, _TRIED), value=1)
    position_B = mask_PL.sum(dim=-1)[prompt_B]
    if way == "stepwise":
        refuse_states(model)
    cache = branch_off(cache, mask_PL, prompt_B, dtype, way)
    logits = [logits_BV]
    with attending(model, NAME) if way == "stepwise" else nullcontext():
        for column, ids_B in enumerate(chosen_BT[:, :-1].unbind(dim=1)):
            logits.append(read_next(model, ids_B, mask_BL, position_B + column, cache))
    logprobs_BTV = torch.stack(logits, dim=1).float().log_softmax(dim=-1)
    return logprobs_BTV.gather(-1, chosen_BT[:, :, None]).squeeze(-1)
