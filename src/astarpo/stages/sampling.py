"""Stage 1's sampling: rounds, each cut into shards, of which every process samples its own."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from astarpo.config import EstimateConfig
from astarpo.engines.base import Engine, Sampling
from astarpo.grading.grader import Grader
from astarpo.models.vocabulary import Vocabulary
from astarpo.rollout import roll_out
from astarpo.runtime.memory import peak_memory_gib
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.profiling import profile_steps
from astarpo.runtime.progress import Progress
from astarpo.runtime.seeding import derive_seed
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.stages.prepared import Prepared
from astarpo.types import Prompt, UserError
from astarpo.values.plan import missing_shards
from astarpo.values.rounds import Limit, Round, rounds
from astarpo.values.shards import Sample, shard_name
from astarpo.values.shrinkage import Shrunk
from astarpo.values.summary import column_counts
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")

Shard = Sequence[tuple[Prompt, int]]
"""Prompts, each with the number of the sample."""

# The share of truncated samples is judged from this many on.
_ENOUGH_SAMPLES = 128


def sample(
    config: EstimateConfig,
    where: OneProcess,
    prepared: Prepared,
    engine: Engine,
    grader: Grader,
    table: ValueTable,
) -> Round:
    """Samples what is missing, round after round; returns the last round.

    Each process samples shards of its own. It plans from what all had finished when the round
    began, before any of them goes on.
    """
    prompts = prepared.prompts
    done = Round(0, np.zeros(len(prompts), np.int64))
    planned = plan_rounds(config, table, prompts)
    while True:
        shards = []
        with where.together():
            if (following := next(planned, None)) is not None:
                counts_P = following.counts_P
                shards = missing_shards(table, prompts, counts_P, config.shard_problems)
        if following is None:
            return done
        done = following
        if 0 < len(shards) < where.size:
            logger.warning(
                f"fewer shards left ({len(shards)}) than ranks ({where.size}): some have nothing "
                f"to do; give a lower --shard-problems than {config.shard_problems}"
            )
        where.first(lambda shards=shards: _record_engine(table, shards, engine))
        mine = [shards[i] for i in where.share([len(shard) for shard in shards])]
        with where.together():
            _sample_missing(config, prepared.vocabulary, engine, grader, table, mine, done, where)


def plan_rounds(
    config: EstimateConfig, table: ValueTable, prompts: Sequence[Prompt]
) -> Iterator[Round]:
    """The rounds in which prompts are sampled, each planned once the one before it is there.

    Raises:
        UserError: Their rewards have more than two values, by which rounds cannot go.
    """
    problems = [prompt.problem for prompt in prompts]
    first_P = np.full(len(prompts), config.samples)
    if not config.in_rounds:
        return iter([Round(1, first_P)])
    estimator = Shrunk(config.beta1)
    limit = Limit(
        samples=config.budget_samples or math.inf,
        tokens=config.budget_tokens or math.inf,
        error=config.target_error or 0.0,
    )
    columns = ["reward", "num_tokens"]
    return rounds(first_P, lambda n_P: table.matrices(problems, n_P, columns), estimator, limit)


def _sample_missing(
    config: EstimateConfig,
    vocabulary: Vocabulary,
    engine: Engine,
    grader: Grader,
    table: ValueTable,
    shards: Sequence[Shard],
    planned: Round,
    where: OneProcess,
) -> None:
    """Samples and judges a round, shard after shard; each is on disk before the next begins."""
    if not shards:
        return
    sampling = Sampling(config.max_new_tokens, config.temperature)
    stopwatch = Stopwatch(dict(table.manifest.get("seconds", {})))
    reasons = column_counts(table.samples(["finish_reason"])["finish_reason"])
    num_samples = sum(map(len, shards))
    profiled = config.profile and where.is_first
    if planned.number > 1:
        known = "not known" if math.isnan(planned.error) else f"{planned.error:.4f}"
        logger.info(f"round {planned.number}: {num_samples} samples; error of V* so far {known}")
    with (
        Progress("stage 1: samples", num_samples) as progress,
        profile_steps(config.out, len(shards), enabled=profiled) as begin_step,
    ):
        for shard in shards:
            prompts = [prompt for prompt, _ in shard]
            seeds = [derive_seed(config.seed, "stage1", p.problem.id, n) for p, n in shard]
            begin_step()
            answers = roll_out(
                vocabulary, engine, grader, prompts, seeds, sampling, stopwatch, progress.advance
            )
            table.append([Sample.of(a, n) for a, (_, n) in zip(answers, shard, strict=True)])
            if where.is_first:
                peak = max(table.manifest.get("peak_memory_gib", 0.0), peak_memory_gib())
                table.set_facts(seconds=stopwatch.seconds, peak_memory_gib=peak)
            reasons.update(answer.completion.finish_reason for answer in answers)
            _refuse_truncation(reasons, config)


def _record_engine(table: ValueTable, shards: Sequence[Shard], engine: Engine) -> None:
    """Writes into the manifest which engine samples some shards, before it does.

    The samples of different engines follow one distribution, and so one table may hold both. Only
    those of one engine are the same bytes when they are sampled again.
    """
    made_by = "{name} ({version}, {dtype})".format_map(engine.facts)
    names = [
        shard_name([prompt.problem.id for prompt, _ in shard], [n for _, n in shard])
        for shard in shards
    ]
    if names:
        known = table.manifest.get("shard_engines", {})
        table.set_facts(shard_engines=known | dict.fromkeys(names, made_by))


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
