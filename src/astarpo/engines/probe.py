"""Whether an engine with a copy of the weights samples from the policy that is trained.

Copies of weights go stale in ways that nothing reports: a sync that was left out, the base model
read from disk once more, keys and values of prompts that older weights made, an adapter known under
its old number, a head with storage of its own. All of them show in log-probs, and in nothing else
as surely. So after every sync the engine continues a few fixed prompts, and its log-probs are held
against those of the trainer's forward pass.

Shapes: _R tokens of all completions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from astarpo.engines.base import Engine, Request, Sampling
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.seeding import uniforms
from astarpo.types import Completion, EngineStopped

BOUNDS = {"float32": 1e-5}
"""Nats a token that an engine's log-probs may be from the trainer's in the mean, by its dtype."""

COARSE_BOUND = 0.05
"""The same in bfloat16, where both sides round each product to 8 bits, each in its own order."""

_MOVED = 0.1
"""The policy has moved if its log-probs have, by this share of the bound: the engine's must too."""

# Whole blocks of cached keys and values have to fit into the longest prompt: what an engine keeps
# of older weights is used by the block. vLLM's have 16 tokens on a GPU and 128 on a CPU.
_LENGTHS = (2, 24, 280)
_SAMPLES, _NEW = 2, 8


class Probe:
    """Holds an engine against the policy whose weights it was given.

    Its prompts are fixed tokens, so that what an engine keeps of them shows at the next check.

    Example:
        probe = Probe(engine, policy, context=512)
        metrics = probe.check(policy)  # after each time that weights were copied
    """

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        context: int | None = None,
        where: OneProcess | None = None,
    ) -> None:
        """Chooses the prompts.

        Args:
            engine: Completes them.
            policy: Whose tokens they are made of.
            context: The most tokens of a prompt and its response, where there is such a limit.
            where: The processes that share the policy; each has an engine, and all check together.
        """
        self._engine = engine
        self._where = where or OneProcess(policy.device)
        context = context or max(_LENGTHS) + _NEW
        self._sampling = Sampling(min(_NEW, context - 1))
        room = context - self._sampling.max_new_tokens
        lengths = sorted({min(length, room) for length in _LENGTHS})
        self._requests = [
            Request(_fixed_tokens(length, policy.vocabulary_size), seed)
            for length in lengths
            for seed in range(_SAMPLES)
        ]
        self._last: tuple[list[Completion], Tensor] | None = None

    def check(self, policy: Policy) -> dict[str, float]:
        """Compares log-probs, also with those of the check before.

        Args:
            policy: What the engine should sample from now.

        Returns:
            `sync_mean` and `sync_max`: how far the engine's log-probs are from the policy's, in
            nats a token.

        Raises:
            EngineStopped: They are too far, or only the policy's have moved since the last check;
                of any process's engine.
        """
        done: list[Completion] = []
        with self._where.together():
            done = self._engine.generate(self._requests, self._sampling)
        policy_R = _logprobs(policy, self._requests, done)
        metrics: dict[str, float] = {}
        with self._where.together():
            metrics = self._compare(done, policy_R)
        return metrics

    def _compare(self, done: list[Completion], policy_R: Tensor) -> dict[str, float]:
        """See `check`."""
        name, dtype = str(self._engine.facts["name"]), str(self._engine.facts["dtype"])
        bound = BOUNDS.get(dtype, COARSE_BOUND)
        engine_R = policy_R.new_tensor([value for each in done for value in each.logprobs])
        apart_R = (policy_R - engine_R).abs()
        last, self._last = self._last, (done, policy_R)
        if last and last[0] == done:
            moved = float((policy_R - last[1]).abs().mean())
            if moved > _MOVED * bound:
                raise EngineStopped(
                    f"engine {name}: its log-probs of the same tokens are to "
                    f"the bit what they were before the update, while the policy's have moved by "
                    f"{moved:.2g} nats a token: the weights did not arrive; {_advice(name)}"
                )
        mean = float(apart_R.mean())
        if not mean <= bound:  # so that not a number is refused too
            raise EngineStopped(
                f"engine {name}: its log-probs are {mean:.2g} nats a token "
                f"from the policy's after a sync, where {dtype} explains {bound:.2g}: it does not "
                f"sample from what is trained; {_advice(name)}"
            )
        return {"sync_mean": mean, "sync_max": float(apart_R.max())}


def _advice(engine: str) -> str:
    if engine == "hf":
        return "please report it"
    return "--engine hf samples without it, more slowly"


def _fixed_tokens(length: int, vocabulary_size: int) -> tuple[int, ...]:
    """Tokens that are the same for ever, and the beginning of all longer ones."""
    places = uniforms(0, length).astype(np.float64) * vocabulary_size
    return tuple(places.astype(int).tolist())


@torch.no_grad()
def _logprobs(policy: Policy, requests: Sequence[Request], done: Sequence[Completion]) -> Tensor:
    """The policy's log-probs of what was sampled, [R]."""
    pairs = zip(requests, done, strict=True)
    batch = policy.collate([(r.prompt_ids, c.token_ids) for r, c in pairs])
    with policy.autocast():
        logprobs_BT, _ = token_logprobs(policy.model, batch, 1.0)
    return logprobs_BT[batch.mask_BT].float().cpu()
