"""Stage 1: estimate V* of every prompt once, from N samples of the reference policy.

    problems -> prompts -> N samples each -> verdicts -> shards of the value table -> values.parquet

Finished shards survive any kill; the same call again does what is missing. A sample depends only on
the seed, its problem and its number, so more samples or problems can be added to a table later.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from astarpo.config import EstimateConfig, ImportValuesConfig
from astarpo.engines import open_engine
from astarpo.engines.base import Sampling
from astarpo.evaluation.scores import level_counts
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import warn_of_verdicts
from astarpo.models.policy import fingerprint, load_policy, pick_device
from astarpo.models.prompts import open_prompts
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
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Answer, Problem, Prompt, UserError
from astarpo.values.manifest import TABLE_MARKS, require_fit, started_manifest
from astarpo.values.rejudge import rejudge
from astarpo.values.shards import Sample
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
    """
    prepared = prepare(config)
    wanted = sampling_fingerprint(config, prepared.problems, config.seed)
    with folder_lock(config.out):
        return _fill(config, prepared, wanted)


def _fill(config: EstimateConfig, prepared: "Prepared", wanted: dict[str, Any]) -> ValueTable:
    """As `estimate`, once its inputs are known to be right and nobody else writes the table."""
    problems, prompts, device = prepared
    facts = {"model": config.model, "package_version": package_version()}
    policy = load_policy(config.model, device)  # before the table is bound to it: it may not load
    table = ValueTable.start(config.out, wanted, facts, any_verifier=config.rejudge)
    sampling = Sampling(config.max_new_tokens, config.temperature)
    engine = open_engine(config, policy)
    stopwatch = Stopwatch(dict(table.manifest.get("seconds", {})))

    if config.rejudge:
        with Grader(config.grade_workers, config.grade_timeout, config.reward) as grader:
            rejudge(table, problems, grader)
    shards = plan_shards(table, prompts, config.samples, config.shard_problems)
    reasons = _counts(table.samples(["finish_reason"])["finish_reason"])
    with (
        Grader(config.grade_workers, config.grade_timeout, config.reward) as grader,
        Progress("stage 1: samples", sum(map(len, shards))) as progress,
        profile_steps(config.out, len(shards), enabled=config.profile) as begin_step,
    ):
        for shard in shards:
            seeds = [derive_seed(config.seed, "stage1", p.problem.id, n) for p, n in shard]
            repeated = [prompt for prompt, _ in shard]
            begin_step()
            answers = roll_out(
                policy, engine, grader, repeated, seeds, sampling, stopwatch, progress.advance
            )
            table.append([_row(answer, n) for answer, (_, n) in zip(answers, shard, strict=True)])
            peak = max(table.manifest.get("peak_memory_gib", 0.0), peak_memory_gib())
            table.set_facts(seconds=stopwatch.seconds, peak_memory_gib=peak)
            reasons.update(answer.completion.finish_reason for answer in answers)
            _refuse_truncation(reasons, config)
    kept = [prompt.problem for prompt in prompts]
    finish_table(table, kept, config.samples, config, num_set_aside=len(problems) - len(kept))
    warn_of_samples("stage 1", table)
    return table


def finish_table(
    table: ValueTable,
    problems: Sequence[Problem],
    num_samples: int,
    config: EstimateConfig | ImportValuesConfig,
    **facts: Any,
) -> None:
    """Writes values.parquet and its picture, marks the table as finished and says what it holds.

    Args:
        table: Has every sample of the problems.
        problems: Which.
        num_samples: N.
        config: Gives beta1 and limits.
        facts: Further entries of the manifest.
    """
    found = table.values(problems, config.beta1, num_samples)
    plot_values(table.path / "values.png", found, config.beta1)
    table.write_values(
        problems,
        num_samples,
        config.beta1,
        tokens=int(table.samples(["num_tokens"])["num_tokens"].to_numpy().sum()),
        max_prompt_tokens=config.max_prompt_tokens,
        num_problems=len(problems),
        **facts,
    )
    logger.info(describe(table, problems, config.max_new_tokens))


class Prepared(NamedTuple):
    """What stage 1 starts from.

    Attributes:
        problems: As read.
        prompts: Of those that are not set aside.
        device: Where the model will be.
    """

    problems: list[Problem]
    prompts: list[Prompt]
    device: torch.device


def prepare(config: EstimateConfig, problems: list[Problem] | None = None) -> Prepared:
    """Reads and checks what `estimate` needs; loads no weights and writes nothing.

    Args:
        config: Its settings.
        problems: Those of a file that is not written yet.

    Raises:
        UserError: An input is wrong, or the table there does not fit.
    """
    inputs = [config.model, config.problems, reward_file(config.reward)]
    check_folder(config.out, inputs, kind="a value table", marks=TABLE_MARKS)
    if problems is None:
        problems = read_problems(config.problems, limit=config.limit)
    problems = problems[: config.limit]
    device = pick_device(config.device)
    verifier_fingerprint(problems, config.reward)
    prompts = open_prompts(
        problems,
        config.model,
        config.prompt_format,
        config.max_prompt_tokens,
        config.max_new_tokens,
    )
    if held := started_manifest(config.out)["fingerprint"]:
        wanted = sampling_fingerprint(config, problems, config.seed)
        misfit = f"{config.out}: the value table does not fit"
        require_fit(held, wanted, misfit, any_verifier=config.rejudge)
    return Prepared(problems, prompts, device)


def sampling_fingerprint(
    config: EstimateConfig | ImportValuesConfig, problems: Sequence[Problem], seed: int | None
) -> dict[str, Any]:
    """Everything that decides which samples a table holds and how they were judged."""
    return (
        fingerprint(config.model)
        | verifier_fingerprint(problems, config.reward)
        | {
            "prompt_format": config.prompt_format,
            "temperature": config.temperature,
            "top_p": 1.0,
            "max_new_tokens": config.max_new_tokens,
            "seed": seed,
        }
    )


def plan_shards(
    table: ValueTable, prompts: Sequence[Prompt], num_samples: int, shard_problems: int
) -> list[list[tuple[Prompt, int]]]:
    """Groups the samples still missing into shards, as (prompt, sample number).

    Similar lengths go together. Shards are cut from one fixed order, so those that an interrupted
    run left undone are the very ones an uninterrupted run would have made, to the byte on CPU.
    """
    missing = table.missing_samples([p.problem for p in prompts], num_samples)
    pending = sorted(
        ((p, m) for p, m in zip(prompts, missing, strict=True) if m),
        key=lambda item: len(item[0].token_ids),
    )
    return [
        [(prompt, n) for prompt, numbers in pending[i : i + shard_problems] for n in numbers]
        for i in range(0, len(pending), shard_problems)
    ]


def describe(table: ValueTable, problems: Sequence[Problem], max_new_tokens: int) -> str:
    """What stage 1 found, as text: histogram of solve rates, lengths, verdicts."""
    rewards_PN = table.rewards(problems)
    levels, counts = level_counts(rewards_PN.mean(axis=1))
    rows = table.samples(["num_tokens", "finish_reason", "status"])
    lines = [f"solve rate of {len(problems)} problems over {rewards_PN.shape[1]} samples:"]
    for level, count in zip(levels, counts, strict=True):
        bar = "#" * round(40 * count / counts.max())
        lines.append(f"  {level:6.3f}  {count / len(problems):6.1%}  {bar}")
    all_wrong = (rewards_PN.max(axis=1) <= 0).mean()
    all_right = (rewards_PN.min(axis=1) >= 1).mean()
    median, longest = np.quantile(rows["num_tokens"].to_numpy(), [0.5, 1.0])
    truncated = _counts(rows["finish_reason"])["length"] / len(rows)
    verdicts = ", ".join(f"{k} {v}" for k, v in _counts(rows["status"]).most_common())
    return "\n".join(
        [
            *lines,
            f"all wrong {all_wrong:.1%}, all right {all_right:.1%}; mean {rewards_PN.mean():.3f}",
            f"tokens a sample: median {median:.0f}, longest {longest:.0f}, limit "
            f"{max_new_tokens}; truncated {truncated:.1%}; verdicts: {verdicts}",
        ]
    )


def warn_of_samples(what: str, table: ValueTable) -> None:
    """Warns where much of a table was not judged or cut off."""
    rows = table.samples(["finish_reason", "status"])
    cut = _counts(rows["finish_reason"])["length"] / len(rows)
    warn_of_verdicts(what, _counts(rows["status"]), cut)


def _row(answer: Answer, number: int) -> Sample:
    problem, completion, verdict = answer.prompt.problem, answer.completion, answer.verdict
    return Sample(
        problem_id=problem.id,
        problem_digest=problem.digest,
        sample=number,
        token_ids=completion.token_ids,
        text=answer.text,
        answer=verdict.answer,
        reward=verdict.reward,
        status=verdict.status,
        num_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
    )


def _counts(column: pa.ChunkedArray) -> Counter[str]:
    """How often each value stands in a column."""
    return Counter({pair["values"]: pair["counts"] for pair in column.value_counts().to_pylist()})


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
