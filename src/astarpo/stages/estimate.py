"""Stage 1: estimate V* of every prompt once, from N samples of the reference policy.

    prompts -> N samples each (engine) -> verdicts (grader) -> shards of the value table -> V*

Finished shards survive any kill; the same call again does what is missing. A sample depends only on
the seed, its problem and its number, so more samples or problems can be added to a table later.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from astarpo.config import EstimateConfig, ImportValuesConfig
from astarpo.engines import choose_engine, load_engine
from astarpo.engines.base import Engine, Sampling
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import warn_of_verdicts
from astarpo.models.policy import load_policy
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
from astarpo.tasks.problem_set import read_problems
from astarpo.training.sharding import OneProcess
from astarpo.types import Problem, Prompt, UserError
from astarpo.values.choice import estimator_of
from astarpo.values.manifest import TABLE_MARKS, require_fit, started_manifest
from astarpo.values.plan import missing_shards, sampling_fingerprint
from astarpo.values.rejudge import rejudge
from astarpo.values.shards import Sample, shard_name
from astarpo.values.summary import column_counts, describe, summarize_samples, summarize_values
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")

# The share of truncated samples is judged from this many on.
_ENOUGH_SAMPLES = 128


def estimate(config: EstimateConfig) -> ValueTable:
    """Writes the value table of a reference policy, or finishes the one at `config.out`.

    Returns:
        The table, complete for the config's problems and samples.

    Raises:
        UserError: An input is wrong, the table there does not fit, or most samples are truncated.
        EngineStopped: The engine failed; the table keeps its finished shards.
    """
    problems, prompts, _, vocabulary, device = prepare(config)
    config = choose_engine(config)
    fingerprint = sampling_fingerprint(config, problems, config.seed)
    where = OneProcess(device)
    load = partial(load_policy, config.model, where.device, vocabulary)
    context = max(len(prompt.token_ids) for prompt in prompts) + config.max_new_tokens
    with (
        folder_lock(config.out),
        # The engine comes first: a table is not bound to a model that cannot be loaded.
        load_engine(config, vocabulary, load, context) as engine,
    ):
        facts = {"model": config.model, "package_version": package_version()}
        facts |= {"engine": dict(engine.facts)}
        table = ValueTable.start(config.out, fingerprint, facts, any_verifier=config.rejudge)
        with Grader(config.grade_workers, config.grade_timeout, config.trust_reward) as grader:
            if config.rejudge:
                rejudge(table, problems, grader)
            shards = missing_shards(table, prompts, config.samples, config.shard_problems)
            mine = [shards[i] for i in where.share([len(shard) for shard in shards])]
            _sample_missing(config, vocabulary, engine, grader, table, mine)
        if where.is_first:
            set_aside = len(problems) - len(prompts)
            kept = [prompt.problem for prompt in prompts]
            finish_table(table, kept, config.samples, config, num_set_aside=set_aside)
    return table


def prepare(config: EstimateConfig, problems: list[Problem] | None = None) -> Prepared:
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
    prepared = prepare_prompts(config, problems)
    if held := started_manifest(config.out)["fingerprint"]:
        wanted = sampling_fingerprint(config, prepared.problems, config.seed)
        require_fit(held, wanted, config.out, any_verifier=config.rejudge)
    return prepared


def _sample_missing(
    config: EstimateConfig,
    vocabulary: Vocabulary,
    engine: Engine,
    grader: Grader,
    table: ValueTable,
    shards: Sequence[Sequence[tuple[Prompt, int]]],
) -> None:
    """Samples and judges shard after shard; each is on disk before the next begins."""
    sampling = Sampling(config.max_new_tokens, config.temperature)
    stopwatch = Stopwatch(dict(table.manifest.get("seconds", {})))
    reasons = column_counts(table.samples(["finish_reason"])["finish_reason"])
    with (
        Progress("stage 1: samples", sum(map(len, shards))) as progress,
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


def finish_table(
    table: ValueTable,
    problems: Sequence[Problem],
    num_samples: int,
    config: EstimateConfig | ImportValuesConfig,
    **facts: Any,
) -> None:
    """Writes V* and its picture, marks the table as finished and logs what it holds.

    The table has N samples of every problem; `facts` are further entries of its manifest.
    """
    found = table.values(problems, estimator_of(dict(config)), num_samples)
    samples = summarize_samples(table.samples(["num_tokens", "finish_reason", "status"]))
    plot_values(table.path / "values.png", found, config.beta1)
    table.write_values(
        problems,
        found,
        tokens=samples.num_tokens,
        max_prompt_tokens=config.max_prompt_tokens,
        num_problems=len(problems),
        **facts,
    )
    logger.info(describe(summarize_values(found), samples, config.max_new_tokens))
    what = "import" if isinstance(config, ImportValuesConfig) else "stage 1"
    warn_of_verdicts(what, samples.statuses, samples.truncated_share)


def preview(config: EstimateConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    all_problems, prompts, _, vocabulary, _ = prepare(config)
    wanted = left = len(prompts) * config.samples
    if (config.out / "manifest.json").exists():
        problems = [prompt.problem for prompt in prompts]
        missing = ValueTable(config.out).missing_samples(problems, config.samples)
        left = sum(map(len, missing))
    return [
        f"{wanted} samples ({config.samples} each), {wanted - left} already there",
        *preview_prompts(vocabulary, prompts, len(all_problems)),
    ]
