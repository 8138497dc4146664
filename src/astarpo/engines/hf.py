"""Sampling with any transformers causal language model, in this process.

A decoding loop of our own rather than `generate`: it returns the log-prob of each token without
keeping the logits, reads and holds a prompt once for all its samples, drops rows as they finish,
gives each completion a random stream of its own, and on CUDA replays a token's kernels as a graph.

Shapes: _B rows being decoded, _R requests, _T tokens of a response, _P prompts, _L their columns,
_V vocabulary.
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
from astarpo.engines.branch_attention import NAME
from astarpo.engines.branch_cache import BranchingCache, survivors
from astarpo.engines.decoding import branches_fit, read
from astarpo.engines.replay import Replay
from astarpo.engines.tokens import choose_tokens
from astarpo.policy import Policy
from astarpo.seeding import uniforms
from astarpo.types import Completion

# Finished rows are dropped several at once: transformers' own cache copies all others to drop one.
_COMPACT_BELOW = 0.9
# Tokens between two looks at which rows have finished: to look, CUDA must wait for the device.
_LOOK_EVERY = {"cpu": 1, "cuda": 8}
# Tokens of prompts that are read at once: enough to keep a device busy, since activations grow
# with them.
_READ_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 15}


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
                done = self._decode([requests[i] for i in indices], sampling)
            completions.update(zip(indices, done, strict=True))
            if on_progress:
                on_progress(len(indices))
        return [completions[i] for i in range(len(requests))]

    def _decode(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        model, device = self.policy.model, self.policy.device
        way = branches_fit(model, self.policy.autocast_dtype)
        cache, logits_BV, mask_BL = self._prefill([r.prompt_ids for r in requests], way)
        rows = Rows([r.seed for r in requests], mask_BL, self._stop_ids, sampling)
        rows.take(logits_BV)

        def read_and_take() -> None:
            seen_BL = None if way else rows.seen(cache.get_seq_length() + 1)
            rows.take(read(model, rows.token_B[:, None], seen_BL, rows.position_B[:, None], cache))

        advance = Replay(read_and_take, record=way == "recorded")
        with attending(model, NAME) if way else nullcontext():
            for count in range(1, sampling.max_new_tokens):
                if count % _LOOK_EVERY[device.type] == 0:
                    num_live = int(rows.live_B.sum())
                    if num_live == 0:
                        break
                    if num_live < _COMPACT_BELOW * len(rows.live_B):
                        keep = survivors(rows.live_B, num_live)
                        cache.batch_select_indices(keep)
                        rows.keep(keep)
                        advance.renew()
                if way and cache.open_column():
                    advance.renew()
                advance()
        return rows.completions()

    def _prefill(
        self, prompts: Sequence[tuple[int, ...]], way: str | None
    ) -> tuple[Any, Tensor, Tensor]:
        """Reads each distinct prompt once; returns cache, next-token logits and mask per row."""
        model, device, pad_id = self.policy.model, self.policy.device, self.policy.pad_id
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        width = max(map(len, distinct))
        ids_PL = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in distinct]).to(device)
        first_P = torch.tensor([width - len(p) for p in distinct])
        position_PL = (torch.arange(width) - first_P[:, None]).to(device)
        mask_PL = (position_PL >= 0).long()
        position_PL = position_PL.clamp(min=0)
        row_B = torch.tensor([place[p] for p in prompts]).to(device)

        at_once = max(1, _READ_AT_ONCE[device.type] // width) if way else len(distinct)
        caches: list[Any] = []
        logits: list[Tensor] = []
        inputs = (tensor_PL.split(at_once) for tensor_PL in (ids_PL, mask_PL, position_PL))
        for ids, mask, position in zip(*inputs, strict=True):
            caches.append(DynamicCache(config=model.config))
            logits.append(read(model, ids, mask, position, caches[-1]))
        cache, logits_PV = _joined(caches), torch.cat(logits)
        if way:
            dtype, fixed = self.policy.autocast_dtype, way == "recorded"
            cache = BranchingCache(cache, mask_PL, row_B, dtype, fixed=fixed)
        else:
            cache.batch_select_indices(row_B)
        return cache, logits_PV[row_B], mask_PL[row_B]


class Rows:
    """What a decoding loop knows of its rows, on the device and in place for a CUDA graph's sake.

    Attributes:
        token_B: [B] the newest token.
        position_B: [B] where it stands.
        live_B: [B] whether it is no stop id, nor one before it.
    """

    def __init__(
        self, seeds: Sequence[int], mask_BL: Tensor, stop_ids: Tensor, sampling: Sampling
    ) -> None:
        device, limit = mask_BL.device, sampling.max_new_tokens
        self._sampling = sampling
        self._stop_ids = stop_ids
        self._noise_RT = torch.from_numpy(np.stack([uniforms(s, limit) for s in seeds])).to(device)
        self._tokens_RT = torch.zeros(self._noise_RT.shape, dtype=torch.long, device=device)
        self._logprobs_RT = torch.zeros(self._noise_RT.shape, device=device)
        self._column_1 = torch.zeros(1, dtype=torch.long, device=device)
        self._request_B = torch.arange(len(seeds), device=device)
        self._mask_BL = nn.functional.pad(mask_BL, (0, limit), value=1)  # what is generated is seen
        self.token_B = torch.zeros_like(self._request_B)
        self.position_B = mask_BL.sum(dim=-1) - 1
        self.live_B = torch.ones_like(self._request_B, dtype=torch.bool)

    def take(self, logits_BV: Tensor) -> None:
        """Draws each row's next token."""
        at = (self._request_B, self._column_1)
        token_B, logprob_B = choose_tokens(logits_BV, self._noise_RT[at], self._sampling)
        self._tokens_RT[at] = token_B
        self._logprobs_RT[at] = logprob_B
        self.token_B.copy_(token_B)
        self.live_B &= (token_B[:, None] != self._stop_ids).all(dim=-1)
        self.position_B += 1
        self._column_1 += 1

    def keep(self, keep: Tensor) -> None:
        """Goes on with these rows, in this order."""
        for name in ("_request_B", "_mask_BL", "token_B", "position_B", "live_B"):
            setattr(self, name, getattr(self, name)[keep])

    def seen(self, width: int) -> Tensor:
        """The mask of that many columns: [B, width]."""
        return self._mask_BL[:, :width]

    def completions(self) -> list[Completion]:
        """Every request's tokens up to its first stop id."""
        stops_RT = torch.isin(self._tokens_RT, self._stop_ids)
        stopped_R = stops_RT.any(dim=-1)
        limit = self._tokens_RT.shape[1]
        lengths_R = torch.where(stopped_R, stops_RT.int().argmax(dim=-1) + 1, limit)
        values = (self._tokens_RT, self._logprobs_RT, lengths_R, stopped_R)
        return [
            Completion(tuple(ids[:n]), tuple(logprobs[:n]), "stop" if stopped else "length")
            for ids, logprobs, n, stopped in zip(*(v.tolist() for v in values), strict=True)
        ]


def _joined(caches: Sequence[Any]) -> Any:
    """One cache of all rows of several of equal width."""
    if len(caches) > 1:
        for first, *others in zip(*(cache.layers for cache in caches), strict=True):
            first.keys = torch.cat([first.keys, *(layer.keys for layer in others)])
            first.values = torch.cat([first.values, *(layer.values for layer in others)])
    return caches[0]
