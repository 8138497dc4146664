"""Stage 1: estimate V* of every prompt once, from N samples of the reference policy.

    prompts -> N samples each (engine) -> verdicts (grader) -> shards of the value table -> V*

Finished shards survive any kill; the same call again does what is missing. A sample depends only on
the seed, its problem and its number, so more samples or problems can be added to a table later.

N is the same for each problem, or is shared out in rounds (values/rounds.py): then a round follows
from the samples of those before it, so that a later call goes through the same ones.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astarpo.config import EstimateConfig, ImportValuesConfig
from astarpo.engines import choose_engine, load_engine
from astarpo.engines.base import Engine, Sampling
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import warn_of_verdicts
from astarpo.models.folder import fingerprint
from astarpo.models.policy import load_policy
from astarpo.models.prompts import Prompts
from astarpo.models.vocabulary import Vocabulary
from astarpo.reports.plots import plot_values
from astarpo.rollout import roll_out
from astarpo.runtime.locks import folder_lock
from astarpo.runtime.memory import peak_memory_gib
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.profiling import profile_steps
from astarpo.runtime.progress import Progress
from astarpo.runtime.seeding import derive_seed
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.runtime.version import package_version
from astarpo.stages.prepared import Prepared, prepare_prompts, preview_prompts
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.training.sharding import OneProcess
from astarpo.types import Problem, Prompt, UserError
from astarpo.values.advice import advise
from astarpo.values.choice import estimator_of
from astarpo.values.derived import PromptLengths, read_lengths
from astarpo.values.estimators import problem_values
from astarpo.values.known import ids_of
from astarpo.values.manifest import TABLE_MARKS, require_fit, started_manifest
from astarpo.values.plan import missing_shards, sampling_fingerprint
from astarpo.values.rejudge import rejudge
from astarpo.values.rounds import Limit, Round, rounds
from astarpo.values.shards import Sample, shard_name
from astarpo.values.shrinkage import Shrunk
from astarpo.values.summary import column_counts, describe, summarize_samples, summarize_values
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")

# The share of truncated samples is judged from this many on.
_ENOUGH_SAMPLES = 128


def estimate(config: EstimateConfig, problems: Sequence[Problem] | None = None) -> ValueTable:
    """Writes the value table of a reference policy, or finishes the one at `config.out`.

    Args:
        config: Its settings.
        problems: What `config.problems` will hold, which is then written beside the table.

    Returns:
        The table, complete for the config's problems and samples.

    Raises:
        UserError: An input is wrong, the table there does not fit, or most samples are truncated.
        EngineStopped: The engine failed; the table keeps its finished shards.
    """
    given = problems
    problems, prompts, _, vocabulary, device = prepare(config, given)
    config = choose_engine(config)
    sampled = sampling_fingerprint(config, problems, config.seed)
    where = OneProcess(device)
    load = partial(load_policy, config.model, where.device, vocabulary)
    context = prompts.longest + config.max_new_tokens
    with (
        folder_lock(config.out),
        # The engine comes first: a table is not bound to a model that cannot be loaded.
        load_engine(config, vocabulary, load, context) as engine,
    ):
        facts = {"model": config.model, "package_version": package_version()}
        facts |= {"engine": dict(engine.facts)}
        table = ValueTable.start(config.out, sampled, facts, any_verifier=config.rejudge)
        if given is not None:
            write_problems(config.problems, given)
        with Grader(config.grade_workers, config.grade_timeout, config.trust_reward) as grader:
            if config.rejudge:
                rejudge(table, problems, grader)
            done = Round(0, np.zeros(len(prompts), np.int64))
            for done in plan_rounds(config, table, prompts):
                shards = missing_shards(table, prompts, done.counts_P, config.shard_problems)
                mine = [shards[i] for i in where.share([len(shard) for shard in shards])]
                _sample_missing(config, vocabulary, engine, grader, table, mine, done)
        if where.is_first:
            facts = {"num_set_aside": len(problems) - len(prompts), "rounds": done.number}
            lengths = PromptLengths(prompts.lengths_P, rendered_by(config))
            finish_table(table, prompts.problems, done.counts_P, config, lengths, **facts)
    return table


def plan_rounds(config: EstimateConfig, table: ValueTable, prompts: Prompts) -> Iterator[Round]:
    """The rounds in which prompts are sampled, each planned once the one before it is there.

    Raises:
        UserError: Their rewards have more than two values, by which rounds cannot go.
    """
    problems = prompts.problems
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


def prepare(config: EstimateConfig, problems: Sequence[Problem] | None = None) -> Prepared:
    """Reads and checks what `estimate` needs; loads no weights and writes nothing.

    Args:
        config: Its settings.
        problems: Those of a file that is not written yet.

    Raises:
        UserError: An input is wrong, or the table there does not fit.
    """
    inputs = [config.model, config.problems, reward_file(config.trust_reward)]
    check_folder(config.out, inputs, kind="a value table", marks=TABLE_MARKS)
    if problems is None:
        problems = read_problems(config.problems, limit=config.limit)
    problems = problems[: config.limit]
    known_P = read_lengths(config.out, ids_of(problems), rendered_by(config))
    prepared = prepare_prompts(config, problems, known_P)
    _refuse_small_budget(config, len(prepared.prompts))
    if held := started_manifest(config.out)["fingerprint"]:
        wanted = sampling_fingerprint(config, prepared.problems, config.seed)
        require_fit(held, wanted, config.out, any_verifier=config.rejudge)
    return prepared


def _refuse_small_budget(config: EstimateConfig, num_problems: int) -> None:
    """Refuses a budget that the first round exceeds, at no less than a token a sample."""
    for name in ("budget_samples", "budget_tokens"):
        budget, needed = getattr(config, name), config.samples * num_problems
        if budget is not None and budget < needed:
            fits = budget // num_problems
            lower = f"give --samples {fits}" if fits else f"to {num_problems} with --samples 1"
            raise UserError(
                f"{name} {budget} is too little for the first round, {config.samples} samples of "
                f"each of {num_problems} problems: raise it to {needed}, or {lower}"
            )


def _sample_missing(
    config: EstimateConfig,
    vocabulary: Vocabulary,
    engine: Engine,
    grader: Grader,
    table: ValueTable,
    shards: Sequence[Sequence[tuple[Prompt, int]]],
    planned: Round,
) -> None:
    """Samples and judges a round, shard after shard; each is on disk before the next begins."""
    if not shards:
        return
    sampling = Sampling(config.max_new_tokens, config.temperature)
    stopwatch = Stopwatch(dict(table.manifest.get("seconds", {})))
    reasons = column_counts(table.coded_samples(["finish_reason"])["finish_reason"])
    num_samples = sum(map(len, shards))
    if planned.number > 1:
        known = "not known" if math.isnan(planned.error) else f"{planned.error:.4f}"
        logger.info(f"round {planned.number}: {num_samples} samples; error of V* so far {known}")
    with (
        Progress("stage 1: samples", num_samples) as progress,
        profile_steps(config.out, len(shards), enabled=config.profile) as begin_step,
    ):
        for shard in shards:
            prompts = [prompt for prompt, _ in shard]
            seeds = [derive_seed(config.seed, "stage1", p.problem.id, n) for p, n in shard]
            begin_step()
            _record_engine(table, shard, engine)
            answers = roll_out(
                vocabulary, engine, grader, prompts, seeds, sampling, stopwatch, progress.advance
            )
            table.append([Sample.of(a, n) for a, (_, n) in zip(answers, shard, strict=True)])
            peak = max(table.manifest.get("peak_memory_gib", 0.0), peak_memory_gib())
            table.set_facts(seconds=stopwatch.seconds, peak_memory_gib=peak)
            reasons.update(answer.completion.finish_reason for answer in answers)
            _refuse_truncation(reasons, config)


def _record_engine(table: ValueTable, shard: Sequence[tuple[Prompt, int]], engine: Engine) -> None:
    """Writes into the manifest which engine samples a shard, before it does.

    The samples of different engines follow one distribution, and so one table may hold both. Only
    those of one engine are the same bytes when they are sampled again.
    """
    name = shard_name([prompt.problem.id for prompt, _ in shard], [n for _, n in shard])
    made_by = "{name} ({version}, {dtype})".format_map(engine.facts)
    table.set_facts(shard_engines=table.manifest.get("shard_engines", {}) | {name: made_by})


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


def rendered_by(config: EstimateConfig) -> dict[str, str]:
    """What decides how long prompts are."""
    tokenizer = fingerprint(config.model)["tokenizer"]
    return {"tokenizer": tokenizer, "prompt_format": config.prompt_format}


def finish_table(
    table: ValueTable,
    problems: Sequence[Problem],
    num_samples: ArrayLike,
    config: EstimateConfig | ImportValuesConfig,
    lengths: PromptLengths | None = None,
    **facts: Any,
) -> None:
    """Writes V* and its picture, marks the table as finished and logs what it holds, with advice.

    The table has so many samples of each problem; `facts` are further entries of its manifest.
    """
    estimator = estimator_of(dict(config))
    rewards_PN = table.rewards(problems, num_samples)
    found, advice = problem_values(rewards_PN, estimator), advise(rewards_PN, estimator)
    samples = summarize_samples(table.coded_samples(["num_tokens", "finish_reason", "status"]))
    plot_values(table.path / "values.png", found, config.beta1)
    table.write_values(
        problems,
        found,
        lengths,
        tokens=samples.num_tokens,
        max_prompt_tokens=config.max_prompt_tokens,
        num_problems=len(problems),
        advice=advice.facts(),
        **facts,
    )
    logger.info(describe(summarize_values(found), samples, config.max_new_tokens))
    logger.info("\n".join(advice.lines()))
    what = "import" if isinstance(config, ImportValuesConfig) else "stage 1"
    warn_of_verdicts(what, samples.statuses, samples.truncated_share)


def preview(config: EstimateConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    all_problems, prompts, _, vocabulary, _ = prepare(config)
    wanted = left = len(prompts) * config.samples
    if (config.out / "manifest.json").exists():
        missing = ValueTable(config.out).missing_samples(prompts.problems, config.samples)
        left = sum(map(len, missing))
    first = "first round: " if config.in_rounds else ""
    return [
        f"{first}{wanted} samples ({config.samples} each), {wanted - left} already there",
        *preview_prompts(vocabulary, prompts, len(all_problems)),
    ]
