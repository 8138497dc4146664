"""Samples of the reference, shard after shard: what `estimate` does with its plan.

A sampler makes the rows of shards, in this process or elsewhere, and what it makes is written here,
each shard as soon as it is done.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

import pyarrow as pa
import torch

from astarpo.config import EstimateConfig
from astarpo.engines import choose_engine, load_engine
from astarpo.engines.base import Engine, Sampling
from astarpo.grading.grader import Grader
from astarpo.models.policy import load_policy
from astarpo.models.vocabulary import Vocabulary
from astarpo.rollout import roll_out
from astarpo.runtime.locks import brief_lock
from astarpo.runtime.memory import peak_memory_gib
from astarpo.runtime.profiling import profile_steps
from astarpo.runtime.progress import Progress
from astarpo.runtime.seeding import derive_seed
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.types import UserError
from astarpo.values.plan import Shard
from astarpo.values.shards import Sample, sample_rows
from astarpo.values.summary import column_counts
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")

# The share of truncated samples is judged from this many on.
_ENOUGH_SAMPLES = 128
_SECONDS_BETWEEN_NOTES = 10.0


class Sampled(NamedTuple):
    """A shard that has been sampled and judged.

    Attributes:
        rows: Its samples, in the schema of shards.
        engine: What sampled them.
        seconds: Spent on it, by phase.
        peak_memory_gib: The most memory so far of the process that sampled it.
    """

    rows: pa.Table
    engine: str
    seconds: dict[str, float]
    peak_memory_gib: float


class Sampler(Protocol):
    """Samples shards; it holds nothing before it is opened, and is left as a context manager."""

    def open(self) -> dict[str, Any]:
        """Loads the engine, unless that was done before; returns the engine's facts.

        Raises:
            UserError: The engine cannot be had, or the model does not load.
        """
        ...

    def sample(
        self, shards: Sequence[Shard], on_progress: Callable[[int], None]
    ) -> Generator[Sampled]:
        """Yields each shard once it is done, in any order; for `on_progress` see `Engine`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class LocalSampler:
    """Samples in this process."""

    def __init__(
        self,
        config: EstimateConfig,
        vocabulary: Vocabulary,
        context: int,
        grader: Grader,
        device: torch.device,
    ) -> None:
        """Makes a sampler.

        Args:
            config: Settings of stage 1.
            vocabulary: Of the model.
            context: Tokens of the longest prompt and its response.
            grader: Judges the samples.
            device: Where the model is to be.
        """
        self._config = config
        self._device = device
        self._vocabulary = vocabulary
        self._context = context
        self._grader = grader
        self._engine: Engine | None = None
        self._facts: dict[str, Any] = {}
        self._held = ExitStack()

    def __enter__(self) -> "LocalSampler":
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def open(self) -> dict[str, Any]:
        """Loads the engine; see `Sampler`."""
        if self._engine is None:
            config = choose_engine(self._config)
            load = partial(load_policy, config.model, self._device, self._vocabulary)
            engine = load_engine(config, self._vocabulary, load, self._context)
            self._engine = self._held.enter_context(engine)
            self._facts = dict(engine.facts)
        return self._facts

    def sample(
        self, shards: Sequence[Shard], on_progress: Callable[[int], None]
    ) -> Generator[Sampled]:
        """Samples one shard after another; see `Sampler`."""
        config = self._config
        self.open()
        with profile_steps(config.out, len(shards), enabled=config.profile) as begin_step:
            for shard in shards:
                begin_step()
                yield self._sample(shard, on_progress)

    def _sample(self, shard: Shard, on_progress: Callable[[int], None]) -> Sampled:
        engine, config = self._engine, self._config
        assert engine is not None
        samples, stopwatch = shard.samples(), Stopwatch()
        sampling = Sampling(config.max_new_tokens, config.temperature)
        answers = roll_out(
            self._vocabulary,
            engine,
            self._grader,
            [prompt for prompt, _ in samples],
            [derive_seed(config.seed, "stage1", p.problem.id, n) for p, n in samples],
            sampling,
            stopwatch,
            on_progress,
        )
        rows = sample_rows([Sample.of(a, n) for a, (_, n) in zip(answers, samples, strict=True)])
        made_by = "{name} ({version}, {dtype})".format_map(self._facts)
        return Sampled(rows, made_by, stopwatch.seconds, peak_memory_gib())


def fill(
    config: EstimateConfig, table: ValueTable, sampler: Sampler, shards: Sequence[Shard]
) -> None:
    """Has shards sampled and writes each as soon as it is done.

    Raises:
        UserError: Most samples are truncated.
        EngineStopped: The engine failed; the shards before are kept.
    """
    if not shards:
        return
    costs = Costs(table, sampler.open())
    reasons: Counter[str] = Counter()
    if config.part is None:  # A part would have to read what all others have written.
        reasons = column_counts(table.samples(["finish_reason"])["finish_reason"])
    label = "stage 1: samples" if config.part is None else f"stage 1, part {config.part}: samples"
    try:
        with (
            Progress(label, sum(map(len, shards))) as progress,
            closing(sampler.sample(shards, progress.advance)) as results,
        ):
            for sampled in results:
                table.append(sampled.rows, sampled.engine)
                costs.add(sampled)
                reasons.update(column_counts(sampled.rows["finish_reason"]))
                _refuse_truncation(reasons, config)
    finally:
        costs.write()


class Costs:
    """What sampling took, for the manifest: several processes may add to it."""

    def __init__(self, table: ValueTable, engine: dict[str, Any]) -> None:
        self._table = table
        self._engine = engine
        self._seconds: dict[str, float] = {}
        self._peak_gib = 0.0
        self._written_s = time.monotonic()

    def add(self, sampled: Sampled) -> None:
        """Counts a shard, and now and then writes what has come together."""
        for phase, seconds in sampled.seconds.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
        self._peak_gib = max(self._peak_gib, sampled.peak_memory_gib)
        if time.monotonic() - self._written_s > _SECONDS_BETWEEN_NOTES:
            self.write()

    def write(self) -> None:
        """Adds what has come together to the manifest."""
        if not self._seconds:
            return
        with brief_lock(self._table.path):
            self._table.refresh()
            manifest = self._table.manifest
            before = manifest.get("seconds", {})
            names = [*before, *(name for name in self._seconds if name not in before)]
            self._table.set_facts(
                engine=self._engine,
                seconds={n: before.get(n, 0.0) + self._seconds.get(n, 0.0) for n in names},
                peak_memory_gib=max(manifest.get("peak_memory_gib", 0.0), self._peak_gib),
            )
        self._seconds, self._written_s = {}, time.monotonic()


def _refuse_truncation(reasons: Counter[str], config: EstimateConfig) -> None:
    """Ends sampling once most samples, by their finish reasons so far, were cut."""
    total = reasons.total()
    share = reasons["length"] / total
    if share > 0.5 and total >= _ENOUGH_SAMPLES and not config.allow_truncated:
        raise UserError(
            f"{share:.0%} of {total} samples were cut at max_new_tokens="
            f"{config.max_new_tokens}, so their reward says little; raise it with a new --out, or "
            "go on with --allow-truncated (what is sampled is kept)"
        )
