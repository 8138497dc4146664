"""Stage 1: estimate V* of every prompt once, from N samples of the reference policy.

    prompts -> N samples each (engine) -> verdicts (grader) -> shards of the value table -> V*

Finished shards survive any kill; the same call again does what is missing. A sample depends only on
the seed, its problem and its number, so more samples or problems can be added to a table later.

N is the same for each problem, or is shared out in rounds (values/rounds.py): then a round follows
from the samples of those before it, so that a later call goes through the same ones.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from numpy.typing import ArrayLike

from astarpo.config import EstimateConfig, ImportValuesConfig
from astarpo.engines import choose_engine, load_engine
from astarpo.engines.base import Engine
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import warn_of_verdicts
from astarpo.models.policy import load_policy
from astarpo.reports.plots import plot_values
from astarpo.runtime.distributed import open_ranks
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.version import package_version
from astarpo.stages.prepared import Prepared, prepare_prompts, preview_prompts
from astarpo.stages.ranks import call_facts
from astarpo.stages.sampling import sample
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import Problem, UserError
from astarpo.values.advice import advise
from astarpo.values.choice import estimator_of
from astarpo.values.estimators import problem_values
from astarpo.values.manifest import TABLE_MARKS, require_fit, started_manifest
from astarpo.values.plan import sampling_fingerprint
from astarpo.values.rejudge import rejudge
from astarpo.values.summary import describe, summarize_samples, summarize_values
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")


def estimate(config: EstimateConfig, problems: list[Problem] | None = None) -> ValueTable:
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
    with open_ranks(config.device) as where, ExitStack() as held:
        with where.together():
            prepared = prepare(config, problems)
            where.require_work(len(prepared.prompts), "prompts")
            fingerprint = sampling_fingerprint(config, prepared.problems, config.seed)
            digests = {
                f"problem {prompt.problem.id}": prompt.problem.digest for prompt in prepared.prompts
            }
        where.require_alike(call_facts(config) | fingerprint | digests)
        config = choose_engine(config)
        load = partial(load_policy, config.model, where.device, prepared.vocabulary)
        longest = max(len(prompt.token_ids) for prompt in prepared.prompts)
        held.enter_context(where.locked(config.out))
        with where.together():
            # It comes first: a table is not bound to a model that cannot be loaded.
            context = longest + config.max_new_tokens
            engine = load_engine(config, prepared.vocabulary, load, context)
        held.enter_context(engine)
        grader = held.enter_context(
            Grader(config.grade_workers, config.grade_timeout, config.trust_reward)
        )
        where.first(lambda: _start(config, fingerprint, engine, grader, prepared.problems))
        if problems is not None:
            where.first(lambda: write_problems(config.problems, problems))
        with where.together():
            table = ValueTable(config.out, fingerprint)
        done = sample(config, where, prepared, engine, grader, table)
        kept = [prompt.problem for prompt in prepared.prompts]
        facts = {"num_set_aside": len(prepared.problems) - len(kept), "rounds": done.number}
        where.first(lambda: finish_table(table, kept, done.counts_P, config, **facts))
        return ValueTable(config.out)


def _start(
    config: EstimateConfig,
    fingerprint: dict[str, Any],
    engine: Engine,
    grader: Grader,
    problems: Sequence[Problem],
) -> None:
    """Makes the table, or opens it to go on with it and judges its samples anew where asked to."""
    facts = {"model": config.model, "package_version": package_version()}
    facts |= {"engine": dict(engine.facts)}
    table = ValueTable.start(config.out, fingerprint, facts, any_verifier=config.rejudge)
    if config.rejudge:
        rejudge(table, problems, grader)


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


def finish_table(
    table: ValueTable,
    problems: Sequence[Problem],
    num_samples: ArrayLike,
    config: EstimateConfig | ImportValuesConfig,
    **facts: Any,
) -> None:
    """Writes V* and its picture, marks the table as finished and logs what it holds, with advice.

    The table has so many samples of each problem; `facts` are further entries of its manifest.
    """
    estimator = estimator_of(dict(config))
    rewards_PN = table.rewards(problems, num_samples)
    found, advice = problem_values(rewards_PN, estimator), advise(rewards_PN, estimator)
    samples = summarize_samples(table.samples(["num_tokens", "finish_reason", "status"]))
    plot_values(table.path / "values.png", found, config.beta1)
    table.write_values(
        problems,
        found,
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
        problems = [prompt.problem for prompt in prompts]
        missing = ValueTable(config.out).missing_samples(problems, config.samples)
        left = sum(map(len, missing))
    first = "first round: " if config.in_rounds else ""
    return [
        f"{first}{wanted} samples ({config.samples} each), {wanted - left} already there",
        *preview_prompts(vocabulary, prompts, len(all_problems)),
    ]
