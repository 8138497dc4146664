"""Sampling in this process from a policy whose weights several processes share.

To put layers together for every token would cost far more than sampling itself, and all processes
would have to sample equally many tokens. So each process has a whole copy of the model to sample
from: its linear layers are in the dtype that the policy computes in, so that on a GPU it takes half
of the memory that the weights took in fp32. It is filled from the policy's parts, one tensor after
the other, after each update, and is given back while the policy is trained.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.engines.probe import Probe
from astarpo.models.empty import empty_like, held_tensors, materialize
from astarpo.models.lora import merged_tensors
from astarpo.models.policy import Policy, make_policy
from astarpo.runtime.one_process import OneProcess
from astarpo.types import Completion


class ReplicaEngine:
    """Samples from a copy of a policy, by an engine that samples from a module of this process."""

    def __init__(
        self, policy: Policy, make_engine: Callable[[Policy], HFEngine], where: OneProcess
    ) -> None:
        """Makes the copy and fills it.

        Args:
            policy: Shared by the processes; with an adapter, the copy has it merged.
            make_engine: Opens an engine on the copy.
            where: The processes, which all open one of these and sync together.

        Raises:
            EngineStopped: The copy does not say what the policy says.
        """
        model = empty_like(policy.model)
        copied = make_policy(model, policy.vocabulary, device=where.device)
        materialize(model, where.device)
        self._policy = policy
        self._where = where
        self._engine = make_engine(copied)
        self._held = held_tensors(model)
        self._sizes = {name: t.untyped_storage().nbytes() for name, t in self._held.items()}
        self._places: dict[str, list[str]] = defaultdict(list)
        tied = getattr(model, "all_tied_weights_keys", None) or {}
        for name in self._held:  # a rounded head is no longer tied, and filled all the same
            self._places[tied.get(name, name)].append(name)
        self._probe = Probe(self, policy, where=where)
        self.sync(policy)

    @property
    def facts(self) -> dict[str, Any]:
        """See `Engine.facts`."""
        return self._engine.facts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Gives back the copy."""
        self._release()

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Completes every request, in order; see `Engine.generate`. No process waits for others."""
        return self._engine.generate(requests, sampling, on_progress)

    def sync(self, policy: Policy) -> dict[str, float]:
        """Copies the policy's weights, on all processes; see `Engine.sync`.

        Raises:
            EngineStopped: On any process the copy does not say what the policy says.
        """
        if policy.model is not self._policy.model:
            raise ValueError("this engine samples from the policy that it was opened with")
        started = time.perf_counter()
        self.load(merged_tensors(policy))
        took_s = time.perf_counter() - started
        return {"sync_seconds": took_s, **self._probe.check(policy)}

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Fills the copy, whose memory it takes first if it was given back.

        Args:
            weights: All of the model's, by name; none is needed any longer when the next one comes.
        """
        weights, missing = iter(weights), set(self._held)
        with self._where.together():
            try:
                for name, tensor in self._held.items():
                    tensor.untyped_storage().resize_(self._sizes[name])
                for source, values in weights:
                    for name in self._places[source]:
                        self._held[name].copy_(values)
                        missing.discard(name)
            finally:
                for _ in weights:  # of which other processes may still wait for this one's parts
                    pass
            assert not missing, f"not filled: {sorted(missing)[:3]}"

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Gives back the memory of the copy, which the next `sync` takes again."""
        self._release()
        yield

    def _release(self) -> None:
        for tensor in self._held.values():
            tensor.untyped_storage().resize_(0)
