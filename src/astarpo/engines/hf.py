"""Sampling with any transformers causal language model, in this process.

Where the model allows it, a decoding loop of our own samples: it returns the log-prob of each token
without keeping the logits, reads and holds a prompt once for all its samples, drops rows as they
finish, and gives each completion a random stream of its own. Other models are decoded by
transformers' `generate`. The log-probs of either are compared with those of a forward pass before
they are trusted.

Shapes: _B rows being decoded, _P prompts, _L their columns, _R response tokens of some sequences.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache

from astarpo.engines.base import Request, Sampling, refuse_unfit
from astarpo.engines.branching.attention import NAME
from astarpo.engines.branching.cache import survivors
from astarpo.engines.decoding import DecodingWay, branch_off, make_plan, read, read_next
from astarpo.engines.generate import complete
from astarpo.engines.rows import Rows
from astarpo.models.agreement import describe_error, gap, tolerance
from astarpo.models.attention import attending
from astarpo.models.logprobs import logprobs_alone
from astarpo.models.policy import Policy
from astarpo.runtime.stopping import check_stop
from astarpo.runtime.transfer import send
from astarpo.types import Completion, UserError

# Finished rows are dropped once less than this share is live: transformers' own cache copies all
# others to drop one.
_COMPACT_BELOW = 0.9
# Tokens between two looks at which rows have finished. A look waits for the GPU to catch up.
_LOOK_EVERY = {"cpu": 1, "cuda": 8}
# Tokens of prompts that are read at once: enough to keep the device busy, and no more, since the
# memory of activations grows with them.
_READ_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 15}


class HFEngine:
    """Decodes batches of similar prompt length with the policy's own module.

    Attributes:
        policy: Sampled from as it is at each call: training it in place needs no copying.
        max_sequences: Rows decoded at once.
        own_loop: Whether to decode by our own loop where that fits.
        facts: See `Engine.facts`.
    """

    name = "hf"

    def __init__(self, policy: Policy, max_sequences: int, *, own_loop: bool = True) -> None:
        self.policy = policy
        self.max_sequences = max_sequences
        self.own_loop = own_loop
        dtype = policy.autocast_dtype or policy.model.dtype
        self.facts: dict[str, Any] = {
            "name": self.name,
            "version": f"transformers {transformers.__version__}",
            "dtype": str(dtype).removeprefix("torch."),
        }
        self._stop_ids = torch.tensor(sorted(policy.vocabulary.stop_ids), device=policy.device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Has nothing to give back: the model is the caller's."""

    def sync(self, policy: Policy) -> dict[str, float]:
        """Refuses another policy than the one sampled from; there is nothing to copy."""
        if policy.model is not self.policy.model:
            raise ValueError("this engine samples from the module that it was opened with")
        return {}

    def resting(self) -> AbstractContextManager[None]:
        """Has no memory of its own between two calls."""
        return nullcontext()

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Completes every request, in order; see `Engine.generate`.

        Raises:
            ValueError: A prompt is empty or holds an id that the model does not have.
            UserError: No way of decoding gives the log-probs of a forward pass over what it wrote.
        """
        refuse_unfit(requests, sampling, self.policy.vocabulary_size)
        by_length = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        completions: dict[int, Completion] = {}
        for start in range(0, len(by_length), self.max_sequences):
            indices = by_length[start : start + self.max_sequences]
            with self.policy.autocast():
                done = self._complete([requests[i] for i in indices], sampling)
            completions.update(zip(indices, done, strict=True))
            if on_progress:
                on_progress(len(indices))
        return [completions[i] for i in range(len(requests))]

    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Completes requests by the fastest way whose log-probs are those of a forward pass."""
        policy, prompts = self.policy, [request.prompt_ids for request in requests]
        plan = make_plan(policy, prompts, sampling.max_new_tokens, own_loop=self.own_loop)
        while True:
            try:
                done = self._decode(requests, sampling, plan.ways[0])
            except (UserError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # Models differ in too many ways to foresee how one fails.
                if plan.proven:
                    raise
                plan.rule_out(f"fails ({describe_error(error)})")
                continue
            self.facts["decoding"] = plan.ways[0]
            longest = max(len(p) + len(c.token_ids) for p, c in zip(prompts, done, strict=True))
            if longest <= plan.proven or sampling.top_p < 1:
                return done
            apart = self._apart(prompts, done, sampling)
            if apart <= tolerance(policy.model):
                plan.proven = longest
                return done
            plan.rule_out(f"gives log-probs {apart:.2g} nats a token from a forward pass")

    def _apart(
        self, prompts: Sequence[tuple[int, ...]], done: Sequence[Completion], sampling: Sampling
    ) -> float:
        """How far the log-probs of a few completions are from those of a forward pass."""
        order = sorted(range(len(done)), key=lambda i: len(prompts[i]) + len(done[i].token_ids))
        few = [order[0], order[len(order) // 2], order[-1]]
        batch = self.policy.collate([(prompts[i], done[i].token_ids) for i in few])
        theirs_R = logprobs_alone(self.policy.model, batch, sampling.temperature or 1.0)
        ours_R = theirs_R.new_tensor([value for i in few for value in done[i].logprobs])
        return gap(ours_R, theirs_R, [len(done[i].token_ids) for i in few])

    def _decode(
        self, requests: Sequence[Request], sampling: Sampling, way: DecodingWay
    ) -> list[Completion]:
        if way in ("generate", "generate_alike"):
            return complete(self.policy, requests, sampling, alike=way == "generate_alike")
        return self._step(requests, sampling, way)

    def _step(
        self, requests: Sequence[Request], sampling: Sampling, way: DecodingWay
    ) -> list[Completion]:
        """Decodes token by token, with our own cache or with transformers'."""
        model, look_every = self.policy.model, _LOOK_EVERY[self.policy.device.type]
        cache, logits_BV, mask_BL = self._prefill([r.prompt_ids for r in requests], way)
        rows = Rows([r.seed for r in requests], mask_BL, self._stop_ids, sampling)
        rows.take(logits_BV)
        with attending(model, NAME) if way == "stepwise" else nullcontext():
            for count in range(1, sampling.max_new_tokens):
                check_stop()
                if count % look_every == 0:
                    num_live = int(rows.live_B.sum())
                    if num_live == 0:
                        break
                    if num_live < _COMPACT_BELOW * len(rows.live_B):
                        keep = survivors(rows.live_B, num_live)
                        cache.batch_select_indices(keep)
                        rows.keep(keep)
                rows.take(read_next(model, rows.token_B, rows.mask_BL, rows.position_B, cache))
        return rows.completions()

    def _prefill(
        self, prompts: Sequence[tuple[int, ...]], way: DecodingWay
    ) -> tuple[Any, Tensor, Tensor]:
        """Reads each distinct prompt once; returns cache, next-token logits and mask per row."""
        model, device = self.policy.model, self.policy.device
        place = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        batch = self.policy.collate([(prompt, ()) for prompt in place])
        ids_PL, mask_PL = batch.input_ids_BS, batch.attention_mask_BS
        row_B = send(torch.tensor([place[p] for p in prompts]), device)

        at_once = len(place)
        if way == "stepwise":
            at_once = max(1, _READ_AT_ONCE[device.type] // ids_PL.shape[1])
        caches: list[Any] = []
        logits: list[Tensor] = []
        inputs = (each.split(at_once) for each in (ids_PL, mask_PL, batch.position_ids_BS))
        for ids, mask, position in zip(*inputs, strict=True):
            check_stop()
            caches.append(DynamicCache(config=model.config))
            logits.append(read(model, ids, mask, position, caches[-1]))
        cache = branch_off(_joined(caches), mask_PL, row_B, self.policy.autocast_dtype, way)
        return cache, torch.cat(logits)[row_B], mask_PL[row_B]


class GenerateEngine(HFEngine):
    """Decodes by transformers' own `generate`: slower, for any model."""

    name = "generate"

    def __init__(self, policy: Policy, max_sequences: int) -> None:
        super().__init__(policy, max_sequences, own_loop=False)


def _joined(caches: Sequence[Any]) -> Any:
    """One cache of all rows of several of equal width."""
    if len(caches) > 1:
        for first, *others in zip(*(cache.layers for cache in caches), strict=True):
            first.keys = torch.cat([first.keys, *(layer.keys for layer in others)])
            first.values = torch.cat([first.values, *(layer.values for layer in others)])
    return caches[0]
