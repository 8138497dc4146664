"""Make a value table of samples that others have published, such as A-PO's stage-1 data sets.

Rows are verl's with columns `response_<i>`, and mostly `eval_<i>`. The responses are judged anew,
so that one verifier serves every stage: published rewards come from another (A-PO's stages even
disagree with each other). They are compared, not used.

Such data lack two things, and the manifest says so under `imported`. There are no token ids: the
lengths are counted again, and a response at the limit is taken as truncated. And nothing proves
which weights wrote them: the fingerprint is that of the model which the user names, so that stage 2
accepts no other.
"""

import logging
from collections.abc import Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple

from astarpo.config import ImportValuesConfig
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.models.vocabulary import load_vocabulary
from astarpo.runtime.locks import folder_lock
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.progress import Progress
from astarpo.runtime.version import package_version
from astarpo.stages.estimate import finish_table
from astarpo.tasks.problem_set import VERL_COLUMNS, read_row
from astarpo.tasks.sources import read_rows
from astarpo.types import Problem, UserError, Verdict
from astarpo.values.manifest import TABLE_MARKS, require_fit, started_manifest
from astarpo.values.plan import sampling_fingerprint
from astarpo.values.shards import Sample
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")

_SHARD_PROBLEMS = 256


class Published(NamedTuple):
    """A problem with its published samples.

    Attributes:
        problem: The problem.
        responses: [N] texts.
        rewards: [N] as published, None where they are not.
    """

    problem: Problem
    responses: list[str]
    rewards: list[float | None]


def import_values(config: ImportValuesConfig) -> ValueTable:
    """Writes a value table of published samples, or finishes the one at `config.out`.

    Raises:
        UserError: The source has other columns or lacks responses, nothing judges its problems, the
            model cannot be found, or the table there does not fit.
    """
    published, tokenizer = prepare(config)
    problems = [row.problem for row in published]
    facts = {
        "model": config.model,
        "package_version": package_version(),
        "imported": {"source": config.source, "token_ids": False},
    }
    # Without a seed in the fingerprint, `estimate` refuses to add samples of its own.
    sampled = sampling_fingerprint(config, problems, seed=None)
    with folder_lock(config.out):
        table = ValueTable.start(config.out, sampled, facts)
        _fill(table, published, tokenizer, config)
        _finish(table, published, config)
    return table


def _fill(
    table: ValueTable, published: Sequence[Published], tokenizer: Any, config: ImportValuesConfig
) -> None:
    """Judges the samples that the table does not have yet."""
    problems = [row.problem for row in published]
    num_samples = len(published[0].responses)
    missing = table.missing_samples(problems, num_samples)
    pending = [(p, m) for p, m in zip(published, missing, strict=True) if m]
    with (
        Grader(config.grade_workers, config.grade_timeout, config.trust_reward) as grader,
        Progress("import: samples", sum(len(numbers) for _, numbers in pending)) as progress,
    ):
        for i in range(0, len(pending), _SHARD_PROBLEMS):
            shard = [(p, n) for p, numbers in pending[i : i + _SHARD_PROBLEMS] for n in numbers]
            texts = [p.responses[n] for p, n in shard]
            verdicts = grader.grade([p.problem for p, _ in shard], texts)
            lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
            table.append(
                [
                    _sample(p, n, verdict, length, config.max_new_tokens)
                    for (p, n), verdict, length in zip(shard, verdicts, lengths, strict=True)
                ]
            )
            progress.advance(len(shard))


def prepare(config: ImportValuesConfig) -> tuple[list[Published], Any]:
    """The published samples and the model's tokenizer."""
    inputs = [config.model, config.source, reward_file(config.trust_reward)]
    check_folder(config.out, inputs, kind="a value table", marks=TABLE_MARKS)
    published = read_published(config.source, config.split, config.limit)
    problems = [row.problem for row in published]
    verifier_fingerprint(problems, config.trust_reward)
    tokenizer = load_vocabulary(config.model).tokenizer
    if held := started_manifest(config.out)["fingerprint"]:
        wanted = sampling_fingerprint(config, problems, seed=None)
        require_fit(held, wanted, config.out)
    return published, tokenizer


def read_published(source: str, split: str, limit: int | None = None) -> list[Published]:
    """Reads rows in verl's layout with columns `response_0`, `response_1`, ..."""
    published: list[Published] = []
    used: set[str] = set()
    for row in read_rows(source, split):
        if limit is not None and row.index >= limit:
            break
        if lacking := (VERL_COLUMNS | {"response_0"}) - row.fields.keys():
            raise UserError(
                f"{row.where}: missing column {', '.join(sorted(lacking))}; published samples have "
                "verl's columns and response_0, response_1, ..."
            )
        problem = read_row(row.fields, used, row.where, row.index)
        used.add(problem.id)
        names = takewhile(row.fields.__contains__, (f"response_{i}" for i in count()))
        responses = [row.fields[name] for name in names]
        if not all(isinstance(response, str) for response in responses):
            raise UserError(f"{row.where}: a response is missing")
        if published and len(responses) != len(published[0].responses):
            raise UserError(
                f"{row.where}: has {len(responses)} responses and the first row "
                f"{len(published[0].responses)}; every row needs as many"
            )
        rewards = [row.fields.get(f"eval_{i}") for i in range(len(responses))]
        published.append(Published(problem, responses, rewards))
    if not published:
        raise UserError(f"{source}: holds no rows")
    return published


def _sample(
    published: Published, number: int, verdict: Verdict, length: int, max_new_tokens: int
) -> Sample:
    truncated = length >= max_new_tokens
    return Sample(
        problem_id=published.problem.id,
        problem_digest=published.problem.digest,
        sample=number,
        token_ids=(),
        text=published.responses[number],
        answer=verdict.answer,
        reward=verdict.reward,
        status=verdict.status,
        num_tokens=length if truncated else length + 1,  # the stop id that is no text
        finish_reason="length" if truncated else "stop",
    )


def _finish(table: ValueTable, published: Sequence[Published], config: ImportValuesConfig) -> None:
    problems = [row.problem for row in published]
    num_samples = len(published[0].responses)
    rewards_PN = table.rewards(problems, num_samples)
    pairs = [
        ((theirs or 0) >= 1, ours >= 1)
        for row, rewards in zip(published, rewards_PN, strict=True)
        for theirs, ours in zip(row.rewards, rewards, strict=True)
        if theirs is not None
    ]
    agreement = sum(theirs == ours for theirs, ours in pairs) / len(pairs) if pairs else None
    imported = table.manifest["imported"] | {"agreement": agreement}
    finish_table(table, problems, num_samples, config, num_set_aside=0, imported=imported)
    if agreement is not None:
        logger.info(f"our verifier agrees with {agreement:.1%} of {len(pairs)} published verdicts")


def preview(config: ImportValuesConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    published, _ = prepare(config)
    return [f"{len(published)} problems with {len(published[0].responses)} samples each"]
