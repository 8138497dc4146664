"""A sampler whose engines are in the actors of a Ray cluster."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from astarpo.config import EstimateConfig
from astarpo.models.agreement import describe_error
from astarpo.runtime.given import given_now
from astarpo.runtime.placed import Placed
from astarpo.stages.on_ray.actor import ShardWorker
from astarpo.stages.on_ray.cluster import join
from astarpo.stages.sampling import Sampled
from astarpo.types import EngineStopped, UserError
from astarpo.values.plan import Shard

logger = logging.getLogger("astarpo")

PATIENCE_S = 600.0
"""How long to wait for the cluster to have room for a first engine."""

_MAX_TRIES = 3
_POLL_S = 2.0
_SECONDS_BETWEEN_WORDS = 30.0


class RaySampler:
    """A sampler whose engines are in the actors of a Ray cluster."""

    def __init__(self, config: EstimateConfig, context: int, num_shards: int) -> None:
        """Makes a sampler.

        Args:
            config: Settings of stage 1.
            context: Tokens of the longest prompt and its response.
            num_shards: About how many shards there will be, and so engines at the most.
        """
        self._config = config
        self._context = context
        self._num_shards = num_shards
        self._ray: Any = None
        self._is_ours = False
        self._facts: dict[str, Any] = {}
        # Actors by the reference to what they are at, and those that are at nothing.
        self._placed: dict[Any, Any] = {}
        self._opening: dict[Any, Any] = {}
        self._busy: dict[Any, tuple[Any, Shard]] = {}
        self._idle: list[Any] = []
        self._failed_to_open: list[str] = []
        self._waiting_since_s = self._told_s = time.monotonic()

    def __enter__(self) -> "RaySampler":
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._actors():
            self._ray.kill(actor)
        if self._is_ours:
            self._ray.shutdown()

    def open(self) -> dict[str, Any]:
        """Connects and waits for a first engine; returns its facts.

        Raises:
            UserError: There is no cluster, it has no room, or the engine does not open there.
        """
        if self._ray is None:
            assert self._config.ray is not None
            self._ray, self._is_ours = join(self._config.ray)
            self._waiting_since_s = self._told_s = time.monotonic()
            kind, total = self._resource()
            logger.info(f"joined a Ray cluster with {total:g} {kind}s; an engine takes one")
        while not self._facts:
            self._start_actors(self._num_shards)
            self._wait()
        return self._facts

    def sample(
        self, shards: Sequence[Shard], on_progress: Callable[[int], None]
    ) -> Generator[Sampled]:
        """Yields shards as they come back; see `Sampler`.

        Raises:
            EngineStopped: Once all others are done: shards have failed three times each.
            UserError: The engine refuses what it is asked for.
        """
        self.open()
        todo, tries = deque(shards), Counter[int]()
        failed: list[tuple[Shard, str]] = []
        while todo or self._busy:
            self._start_actors(len(todo) + len(self._busy))
            while todo and self._idle:
                actor, shard = self._idle.pop(), todo.popleft()
                self._busy[actor.ask.remote("sample", shard.alone())] = actor, shard
            for shard, result in self._wait():
                if isinstance(result, Sampled):
                    on_progress(len(shard))
                    yield result
                    continue
                tries[shard.number] += 1
                logger.warning(
                    f"{shard.name}: its engine was lost ({result}), {tries[shard.number]} of "
                    f"{_MAX_TRIES} tries"
                )
                if tries[shard.number] < _MAX_TRIES:
                    todo.append(shard)
                else:
                    failed.append((shard, result))
        if failed:
            raise EngineStopped(_told(failed, len(shards)))

    def _actors(self) -> list[Any]:
        busy = [actor for actor, _ in self._busy.values()]
        return [*self._placed.values(), *self._opening.values(), *busy, *self._idle]

    def _start_actors(self, num_shards: int) -> None:
        """Asks for as many actors as the cluster may have and the shards need.

        Raises:
            UserError: No engine opens there.
        """
        if len(self._failed_to_open) >= _MAX_TRIES:
            if self._actors():
                return
            raise UserError(
                f"--ray {self._config.ray}: no engine opens on the cluster "
                f"({self._failed_to_open[-1]}); every machine of it needs astarpo in the same "
                "version, and to see the model under the same name"
            )
        kind, total = self._resource()
        wanted = self._config.ray_actors or max(1, int(total))
        needs = {"num_gpus": 1} if kind == "GPU" else {}
        for _ in range(min(wanted, num_shards) - len(self._actors())):
            actor = self._ray.remote(num_cpus=1, max_restarts=0, **needs)(Placed).remote()
            self._placed[actor.place.remote()] = actor

    def _resource(self) -> tuple[str, float]:
        """What an engine takes one of, GPU or CPU, and how many of those the cluster has."""
        has = self._ray.cluster_resources()
        on_gpu = self._config.device == "cuda" or (self._config.device == "auto" and "GPU" in has)
        kind = "GPU" if on_gpu else "CPU"
        return kind, has.get(kind, 0)

    def _wait(self) -> list[tuple[Shard, Sampled | str]]:
        """Waits a moment for any actor.

        Returns:
            Shards that have come to an end, each with its samples or with what went wrong.

        Raises:
            UserError: No engine opens, there is no room for one, or one refuses a shard.
        """
        waited_for = [*self._placed, *self._opening, *self._busy]
        ready, _ = self._ray.wait(waited_for, timeout=_POLL_S)
        ended = []
        for reference in ready:
            if reference in self._busy:
                ended.append(self._take(reference))
            else:
                self._go_on(reference)
        if not self._opening and not self._busy and not self._idle:
            self._lose_patience()
        else:
            self._waiting_since_s = time.monotonic()
        return ended

    def _take(self, reference: Any) -> tuple[Shard, Sampled | str]:
        actor, shard = self._busy.pop(reference)
        try:
            sampled = self._ray.get(reference)
        except Exception as error:
            self._ray.kill(actor)
            return shard, _reason(error)
        self._idle.append(actor)
        return shard, sampled

    def _go_on(self, reference: Any) -> None:
        """Has an actor that has its place open its engine, and one that has do the first shard."""
        is_placed = reference in self._placed
        actor = (self._placed if is_placed else self._opening).pop(reference)
        try:
            facts = self._ray.get(reference)
        except Exception as error:
            self._ray.kill(actor)
            self._failed_to_open.append(_reason(error))
            logger.warning(f"an engine did not open on the cluster ({self._failed_to_open[-1]})")
            return
        if is_placed:
            given = [(each.name, each.version, each.pickled) for each in given_now()]
            made = actor.make.remote(ShardWorker, self._config, self._context, given)
            self._opening[made] = actor
            return
        if slower := facts.get("slower_because"):
            logger.warning(f"engine {facts['name']} on the cluster: {slower}")
        self._facts = facts
        self._failed_to_open.clear()
        self._idle.append(actor)

    def _lose_patience(self) -> None:
        """Says now and then what is waited for, and ends when it has been too long."""
        now_s, (kind, total) = time.monotonic(), self._resource()
        free = self._ray.available_resources().get(kind, 0)
        state = f"the cluster has {total:g} {kind}s, {free:g} of them free; an engine takes one"
        if now_s - self._waiting_since_s > PATIENCE_S:
            raise UserError(
                f"--ray {self._config.ray}: no room for an engine in {PATIENCE_S / 60:g} minutes: "
                f"{state}; end what holds them, or add a machine, and run the same command again"
            )
        if now_s - self._told_s > _SECONDS_BETWEEN_WORDS:
            self._told_s = now_s
            left_s = PATIENCE_S - (now_s - self._waiting_since_s)
            logger.warning(f"waiting for room: {state}; giving up in {left_s / 60:.1f} minutes")


def _reason(error: Exception) -> str:
    """Why an actor failed, in a line; an engine that refuses what it is asked for ends the work."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        raise cause from error
    return describe_error(cause if isinstance(cause, Exception) else error)


def _told(failed: Sequence[tuple[Shard, str]], num_shards: int) -> str:
    """What is said at the end of shards that have failed; their problems are logged in full."""
    for shard, reason in failed:
        problems = " ".join(_problem_ids(shard))
        logger.error(f"{shard.name} failed {_MAX_TRIES} times ({reason}), with problems {problems}")
    ids = [name for shard, _ in failed for name in _problem_ids(shard)]
    some = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more, see above" if len(ids) > 3 else "")
    return (
        f"{len(failed)} of {num_shards} shards failed {_MAX_TRIES} times each, everything else is "
        f"sampled and kept: their problems are {some}. Take those out of the problem file, or run "
        "the same command again once what ails them is mended"
    )


def _problem_ids(shard: Shard) -> list[str]:
    return [prompt.problem.id for prompt in shard.alone().prompts]
