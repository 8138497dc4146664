"""Sampling with any transformers causal language model, in this process.

A decoding loop of our own rather than `generate`: it returns the log-prob of each token without
keeping the logits, reads and holds a prompt once for all its samples, drops rows as they finish,
and gives each completion a random stream of its own.

Shapes: _B rows being decoded, _L prompt columns, _V vocabulary.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from astarpo.attention import attending
from astarpo.engines.base import Request, Sampling
from astarpo.engines.branches import NAME, BranchingCache, branches_fit, read, survivors
from astarpo.policy import Policy
from astarpo.seeding import uniforms
from astarpo.types import Completion

# Finished rows are dropped several at once: transformers' own cache copies all others to drop one.
_COMPACT_BELOW = 0.9


class HFEngine:
    """Decodes batches of similar prompt length with a key-value cache.

    Attributes:
        policy: Sampled from as it is at each call; training it in place needs no synchronisation.
        max_sequences: Rows decoded at once.
    """

    def __init__(self, policy: Policy, max_sequences: int) -> None:
        self.policy = policy
        self.max_sequences = max_sequences
        self._stop_ids = torch.tensor(sorted(policy.stop_ids), device=policy.device)

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Completes every request, in order; see `Engine.generate`."""
        by_length = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        completions: dict[int, Completion] = {}
        for start in range(0, len(by_length), self.max_sequences):
            indices = by_length[start : start + self.max_sequences]
            with self.policy.autocast():
                self._branch = branches_fit(self.policy.model)
                done = self._decode([requests[i] for i in indices], sampling)
            completions.update(zip(indices, done, strict=True))
            if on_progress:
                on_progress(len(indices))
        return [completions[i] for i in range(len(requests))]

    def _decode(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        device = self.policy.device
        limit = sampling.max_new_tokens
        row_B = torch.arange(len(requests), device=device)  # which request each row serves
        live_B = torch.ones(len(requests), dtype=torch.bool, device=device)
        noise = torch.from_numpy(np.stack([uniforms(r.seed, limit) for r in requests])).to(device)
        tokens = torch.zeros(noise.shape, dtype=torch.long, device=device)
        logprobs = torch.zeros(noise.shape, device=device)
        cache, logits_BV, mask_BL = self._prefill([r.prompt_ids for r in requests])
        position_B = mask_BL.sum(dim=-1)
        width = mask_BL.shape[1]
        mask_BL = nn.functional.pad(mask_BL, (0, limit), value=1)  # what is generated is seen

        with attending(self.policy.model, NAME) if self._branch else nullcontext():
            for step in range(limit):
                token_B, logprob_B = choose_tokens(logits_BV, noise[row_B, step], sampling)
                tokens[row_B, step] = token_B
                logprobs[row_B, step] = logprob_B
                live_B &= ~torch.isin(token_B, self._stop_ids)
                num_live = int(live_B.sum())
                if num_live == 0 or step + 1 == limit:
                    break
                if num_live < _COMPACT_BELOW * len(row_B):
                    keep = survivors(live_B, num_live)
                    cache.batch_select_indices(keep)
                    row_B, live_B, token_B = row_B[keep], live_B[keep], token_B[keep]
                    position_B, mask_BL = position_B[keep], mask_BL[keep]
                seen_BL = mask_BL[:, : width + step + 1]
                position_B1 = position_B[:, None] + step
                logits_BV = read(self.policy.model, token_B[:, None], seen_BL, position_B1, cache)
        return _completions(tokens, logprobs, torch.isin(tokens, self._stop_ids))

    def _prefill(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Any, Tensor, Tensor]:
        """Reads each distinct prompt once; returns cache, next-token logits and mask per row."""
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        width = max(map(len, distinct))
        device, pad_id = self.policy.device, self.policy.pad_id
        ids_BL = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in distinct])
        lengths_B = torch.tensor([len(p) for p in distinct])
        position_BL = torch.arange(width) - (width - lengths_B)[:, None]
        mask_BL = (position_BL >= 0).long().to(device)

        cache: Any = DynamicCache(config=self.policy.model.config)
        position_BL = position_BL.clamp(min=0).to(device)
        logits_BV = read(self.policy.model, ids_BL.to(device), mask_BL, position_BL, cache)
        row_B = torch.tensor([place[p] for p in prompts], device=device)
        if self._branch:
            cache = BranchingCache(cache, mask_BL, row_B, self.policy.autocast_dtype)
        else:
            cache.batch_select_indices(row_B)
        return cache, logits_BV[row_B], mask_BL[row_B]


def choose_tokens(
    logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Draws one token a row by inverting the cumulative distribution.

    Args:
        logits_BV: [B, V].
        uniform_B: [B] numbers in [0, 1), one draw each.
        sampling: Temperature 0 takes the most likely token (and scores it at temperature 1).

    Returns:
        [B] token ids and [B] log-probs under the distribution drawn from.
    """
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        token_B = logits_BV.argmax(dim=-1)
        return token_B, _gather(logits_BV.log_softmax(dim=-1), token_B)
    logprobs_BV = (logits_BV / sampling.temperature).log_softmax(dim=-1)
    if sampling.top_p < 1:
        logprobs_BV = _keep_nucleus(logprobs_BV, sampling.top_p)
    cumulative_BV = logprobs_BV.exp().cumsum(dim=-1)
    total_B = cumulative_BV[:, -1]
    # Rounding must not carry the threshold up to the total: no token lies beyond it.
    threshold_B = torch.minimum(uniform_B * total_B, total_B.nextafter(torch.zeros_like(total_B)))
    token_B = torch.searchsorted(cumulative_BV, threshold_B[:, None], right=True).squeeze(-1)
    return token_B, _gather(logprobs_BV, token_B)


def _keep_nucleus(logprobs_BV: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest most likely tokens whose mass reaches top_p, and renormalises."""
    sorted_BV, order_BV = logprobs_BV.sort(dim=-1, descending=True)
    mass_before_BV = sorted_BV.exp().cumsum(dim=-1) - sorted_BV.exp()
    dropped_BV = torch.zeros_like(mass_before_BV, dtype=torch.bool)
    dropped_BV.scatter_(-1, order_BV, mass_before_BV >= top_p)
    return logprobs_BV.masked_fill(dropped_BV, -torch.inf).log_softmax(dim=-1)


def _gather(values_BV: Tensor, token_B: Tensor) -> Tensor:
    return values_BV.gather(-1, token_B[:, None]).squeeze(-1)


def _completions(tokens: Tensor, logprobs: Tensor, stops: Tensor) -> list[Completion]:
    """Cuts each row after its first stop id."""
    stopped = stops.any(dim=-1)
    lengths = torch.where(stopped, stops.int().argmax(dim=-1) + 1, tokens.shape[1])
    rows = zip(tokens.tolist(), logprobs.tolist(), lengths.tolist(), stopped.tolist(), strict=True)
    return [
        Completion(tuple(ids[:n]), tuple(lps[:n]), "stop" if ended else "length")
        for ids, lps, n, ended in rows
    ]
