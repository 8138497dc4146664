"""Sampling with transformers' own `generate`: slower than `hf.py`, for models it cannot decode.

`generate` keeps no log-probs unless it keeps all logits, so those of its tokens are computed in a
second pass. Its random numbers are one stream for a batch: a completion depends on its company.
"""

from collections.abc import Callable, Sequence

import torch

from astarpo.batch import collate
from astarpo.engines.base import Request, Sampling
from astarpo.logprobs import token_logprobs
from astarpo.policy import Policy
from astarpo.seeding import derive_seed
from astarpo.types import Completion, FinishReason, UserError


class GenerateEngine:
    """Calls `generate` on batches of similar prompt length.

    Attributes:
        policy: Sampled from as it is at each call.
        max_sequences: Rows decoded at once.
    """

    def __init__(self, policy: Policy, max_sequences: int) -> None:
        self.policy = policy
        self.max_sequences = max_sequences

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Completes every request, in order; see `Engine.generate`.

        Raises:
            UserError: A nucleus is asked for; its log-probs are not computed here.
        """
        if sampling.top_p < 1:
            raise UserError("engine generate: top_p below 1 needs engine hf")
        by_length = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        completions: dict[int, Completion] = {}
        for start in range(0, len(by_length), self.max_sequences):
            indices = by_length[start : start + self.max_sequences]
            done = self._complete([requests[i] for i in indices], sampling)
            completions.update(zip(indices, done, strict=True))
            if on_progress:
                on_progress(len(indices))
        return [completions[i] for i in range(len(requests))]

    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        policy, prompts = self.policy, [request.prompt_ids for request in requests]
        batch = collate(prompts, [()] * len(prompts), policy.pad_id, policy.device)
        draw = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        # Outside this block random numbers stay as they were.
        with policy.autocast(), torch.random.fork_rng():
            torch.manual_seed(derive_seed(0, "generate", *(request.seed for request in requests)))
            new_BT = policy.model.generate(
                batch.input_ids_BS,
                attention_mask=batch.attention_mask_BS,
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=sorted(policy.stop_ids),
                pad_token_id=policy.pad_id,
                repetition_penalty=1.0,
                **(draw if sampling.temperature else {"do_sample": False}),
            )[:, batch.input_ids_BS.shape[1] :]
        responses = [_cut(ids, policy.stop_ids) for ids in new_BT.tolist()]
        batch = collate(prompts, responses, policy.pad_id, policy.device)
        with policy.autocast():
            logprobs_BT, _ = token_logprobs(policy.model, batch, sampling.temperature or 1.0)
        return [
            Completion(ids, tuple(row[: len(ids)]), _reason(ids, policy.stop_ids))
            for ids, row in zip(responses, logprobs_BT.tolist(), strict=True)
        ]


def _reason(ids: Sequence[int], stop_ids: frozenset[int]) -> FinishReason:
    return "stop" if ids[-1] in stop_ids else "length"


def _cut(ids: Sequence[int], stop_ids: frozenset[int]) -> tuple[int, ...]:
    """A response up to its first stop id; what follows is padding."""
    for end, token in enumerate(ids):
        if token in stop_ids:
            return tuple(ids[: end + 1])
    return tuple(ids)
