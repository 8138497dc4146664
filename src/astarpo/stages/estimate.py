"""Stage 1: estimate V* of every prompt once, from N samples of the reference policy.

    prompts -> N samples each (engine) -> verdicts (grader) -> shards of the value table -> V*

Finished shards survive any kill; the same call again does what is missing. A sample depends only on
the seed, its problem and its number, so more samples or problems can be added to a table later.

Which samples stand in which shard is a plan (values/plan.py) that follows from the settings alone,
so that processes which know nothing of each other can each do a part of it (`--part`).

N is the same for each problem, or is shared out in rounds (values/rounds.py): then a round follows
from the samples of those before it, so that a later call goes through the same ones.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astarpo.config import EstimateConfig, ImportValuesConfig
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import warn_of_verdicts
from astarpo.models.folder import fingerprint
from astarpo.models.prompts import Prompts
from astarpo.reports.plots import plot_values
from astarpo.runtime.distributed import open_ranks
from astarpo.runtime.launch import read_launch
from astarpo.runtime.locks import brief_lock
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.version import package_version
from astarpo.stages.foresight import plan_stage
from astarpo.stages.on_ray import RaySampler, require_ray
from astarpo.stages.parts import is_whole, of_part, require_plan, start, write_plans
from astarpo.stages.prepared import Prepared, prepare_prompts, preview_prompts
from astarpo.stages.ranks import call_facts, problem_facts
from astarpo.stages.sampling import LocalSampler, Sampler, fill
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import Problem, UserError
from astarpo.values.advice import advise
from astarpo.values.choice import estimator_of
from astarpo.values.derived import PromptLengths, read_lengths
from astarpo.values.estimators import problem_values
from astarpo.values.known import ids_of
from astarpo.values.manifest import TABLE_MARKS, require_fit, started_manifest
from astarpo.values.plan import PLANS, Plans, sampling_fingerprint
from astarpo.values.rejudge import rejudge
from astarpo.values.rounds import Limit, Round, rounds
from astarpo.values.shards import shard_paths
from astarpo.values.shrinkage import Shrunk
from astarpo.values.summary import describe, summarize_samples, summarize_values
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")


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
    here = "cpu" if config.ray is not None else config.device  # the engines are elsewhere
    with open_ranks(here) as where, ExitStack() as held:
        with where.together():
            prepared = prepare(config, problems)
            where.require_work(len(prepared.prompts), "prompts")
            sampled = sampling_fingerprint(config, prepared.problems, config.seed)
            facts = call_facts(config) | sampled | problem_facts(prepared.problems)
        where.require_alike(facts)
        if config.part is None:
            held.enter_context(where.locked(config.out))
        grader = held.enter_context(
            Grader(config.grade_workers, config.grade_timeout, config.trust_reward)
        )
        sampler = held.enter_context(_sampler(config, where, prepared, grader))
        table, plans = _open_table(config, where, prepared, sampled, sampler, grader)
        if problems is not None:
            where.first(lambda: write_problems(config.problems, problems))
        done = _sample(config, where, prepared, sampler, table, plans)
        where.first(lambda: _complete(config, prepared, table, plans, done))
        return ValueTable(config.out)


def _sampler(
    config: EstimateConfig, where: OneProcess, prepared: Prepared, grader: Grader
) -> Sampler:
    context = prepared.prompts.longest + config.max_new_tokens
    if config.ray is not None:
        num_shards = math.ceil(len(prepared.prompts) / config.shard_problems)
        return RaySampler(config, context, num_shards)
    config = config.model_copy(update={"profile": config.profile and where.is_first})
    return LocalSampler(config, prepared.vocabulary, context, grader, where.device)


def _open_table(
    config: EstimateConfig,
    where: OneProcess,
    prepared: Prepared,
    sampled: dict[str, Any],
    sampler: Sampler,
    grader: Grader,
) -> tuple[ValueTable, Plans]:
    """Makes the table, or opens it to go on; judges its samples anew where that is asked for."""
    facts: dict[str, Any] = {"model": config.model, "package_version": package_version()}
    if where.agree(not shard_paths(config.out)):
        with where.together():
            # The engine comes first: a table is not bound to a model that cannot be loaded.
            facts["engine"] = sampler.open()

    def begin() -> None:
        table, _ = start(config, sampled, facts, prepared.prompts)
        if config.rejudge:
            rejudge(table, prepared.problems, grader)

    where.first(begin)
    with where.together():
        table = ValueTable(config.out, sampled)
        return table, Plans(prepared.prompts, table.manifest.get(PLANS, []))


def _sample(
    config: EstimateConfig,
    where: OneProcess,
    prepared: Prepared,
    sampler: Sampler,
    table: ValueTable,
    plans: Plans,
) -> Round:
    """Samples what is missing, round after round; returns the last round.

    Each process samples shards of its own. It plans from what all had finished when the round
    began, before any of them goes on.
    """
    done = Round(0, np.zeros(len(prepared.prompts), np.int64))
    planned = plan_rounds(config, table, prepared.prompts)
    while True:
        shards, is_new = [], False
        with where.together():
            if (following := next(planned, None)) is not None:
                is_new = plans.add(following.counts_P, config.shard_problems)
                shards = of_part(plans.missing(table, following.counts_P), config)
        if following is None:
            return done
        done = following
        if is_new:
            where.first(lambda: write_plans(table, plans))
        if 0 < len(shards) < where.size:
            logger.warning(
                f"fewer shards left ({len(shards)}) than ranks ({where.size}): some have nothing "
                f"to do; give a lower --shard-problems than {config.shard_problems}"
            )
        if done.number > 1 and shards:
            _tell_round(done, sum(map(len, shards)))
        mine = [shards[i] for i in where.share([len(shard) for shard in shards])]
        with where.together():
            fill(config, table, sampler, mine)


def _complete(
    config: EstimateConfig, prepared: Prepared, table: ValueTable, plans: Plans, done: Round
) -> None:
    """Writes V*, if nothing is missing."""
    prompts = prepared.prompts
    facts: dict[str, Any] = {"num_set_aside": len(prepared.problems) - len(prompts)}
    with brief_lock(config.out):
        if is_whole(config, table, plans, done.counts_P):
            facts |= {"rounds": done.number, PLANS: plans.entries}
            lengths = PromptLengths(prompts.lengths_P, rendered_by(config))
            finish_table(table, prompts.problems, done.counts_P, config, lengths, **facts)


def _tell_round(planned: Round, num_samples: int) -> None:
    known = "not known" if math.isnan(planned.error) else f"{planned.error:.4f}"
    logger.info(f"round {planned.number}: {num_samples} samples; error of V* so far {known}")


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
    here = config
    if config.ray is not None:
        require_ray()
        if read_launch().size > 1:
            raise UserError("--ray starts its engines itself: leave torchrun out")
        # Which engine and device there are is known only where they will be.
        here = config.model_copy(update={"device": "cpu", "engine": "auto"})
    problems = problems[: config.limit]
    known_P = read_lengths(config.out, ids_of(problems), rendered_by(config))
    prepared = prepare_prompts(here, problems, known_P)
    _refuse_small_budget(config, len(prepared.prompts))
    if held := started_manifest(config.out)["fingerprint"]:
        wanted = sampling_fingerprint(config, prepared.problems, config.seed)
        require_fit(held, wanted, config.out, any_verifier=config.rejudge)
    if config.part is not None:
        require_plan(config, prepared.prompts)
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
    counts_P = np.full(len(prompts), config.samples)
    plans = Plans(prompts, started_manifest(config.out).get(PLANS, []))
    plans.add(counts_P, config.shard_problems)
    shards = plans.wanted(counts_P)
    mine = of_part(shards, config)
    wanted = left = sum(map(len, mine))
    if (config.out / "manifest.json").exists():
        missing = plans.missing(ValueTable(config.out), counts_P)
        left = sum(map(len, of_part(missing, config)))
    first = "first round: " if config.in_rounds else ""
    said = f"{first}{wanted} samples ({config.samples} each)"
    if config.part is not None:
        said = f"part {config.part}: {wanted} of {sum(map(len, shards))} samples"
    return [
        f"{said}, {wanted - left} already there",
        *preview_prompts(vocabulary, prompts, len(all_problems)),
        *plan_stage("estimate", config, prompts),
    ]
