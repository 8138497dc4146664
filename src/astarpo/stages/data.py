"""The verb `data`: problems of a task, or a user's own, as a Parquet file."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from astarpo.config import DataConfig
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.grading.grade import GRADE_TIMEOUT_S
from astarpo.grading.grader import Grader
from astarpo.grading.reward import REWARD_PREFIX, reward_file
from astarpo.runtime.distributed import open_ranks
from astarpo.runtime.outputs import check_file
from astarpo.runtime.words import shown
from astarpo.tasks import get_task
from astarpo.tasks.gym import GYM_PREFIX, ReasoningGym, right_response
from astarpo.tasks.made import MadeTask
from astarpo.tasks.overlap import is_held_out, question, refuse_overlap, without
from astarpo.tasks.own import PROMPT_IS_TEXT, Columns, Left, own_problems
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.tasks.rows import Refuse, stop
from astarpo.tasks.template import Template
from astarpo.types import Problem, UserError

OWN = "own"

DEFAULT_NUM_MADE = 1000
"""How many problems are made up where no limit is given, since there is no end of them."""

logger = logging.getLogger("astarpo")


def data(config: DataConfig) -> Path:
    """Writes a task's problems, or a user's own, as Parquet in verl's schema.

    Of several ranks the first one does.

    Returns:
        The file written.

    Raises:
        UserError: The task, source, split or reward is unknown, or a row of the source cannot be
            read or judged. Nothing is written then.
    """
    with open_ranks() as where:
        return where.first(lambda: _write(config))


def _write(config: DataConfig) -> Path:
    problems = prepare(config)
    write_problems(config.out, problems)
    first = problems[0].prompt[-1]["content"].strip()
    found = f"{len(problems)} problems of {config.task}, split {config.split}"
    logger.info(f"{config.out}: {found}; the first: {shown(first, 300)}")
    return config.out


def prepare(config: DataConfig) -> list[Problem]:
    """The problems that `data` would write; raises what it raises."""
    inputs = [config.source, config.without, reward_file(config.reward)]
    check_file(config.out, inputs, overwrite=config.overwrite)
    return gather_problems(config)


def preview(config: DataConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    problems = prepare(config)
    first = problems[0]
    return [
        f"{len(problems)} problems; the first, {first.id}:",
        *(f"{message['role']}: {shown(message['content'])}" for message in first.prompt),
    ]


def gather_problems(
    config: DataConfig,
    held_out: Sequence[Problem] | None = None,
    rows: Iterable[Mapping[str, Any]] | None = None,
) -> list[Problem]:
    """The problems that a config asks for, checked; see `data`.

    Args:
        config: Its settings.
        held_out: What is left out, where the file `config.without` is not written yet.
        rows: Own problems, in the place of `config.source`.
    """
    judge = _data_source(config.reward) if config.reward else None
    columns = Columns(
        config.prompt_column,
        config.answer_column,
        config.instruction,
        Template.of(config.prompt_template) if config.prompt_template else None,
    )
    left = Left()
    refuse = left if config.skip_unreadable else stop
    if config.task == OWN:
        own = _own_problems(config, columns, judge, refuse, rows)
        problems = list(islice(_of_share(own, config), config.limit))
    else:
        if columns.are_given or config.skip_unreadable:
            raise UserError(
                "prompt_column, prompt_template, answer_column, instruction and skip_unreadable "
                f"are for {OWN} problems"
            )
        problems = _task_problems(config)
        if judge:
            problems = [replace(problem, data_source=judge) for problem in problems]
    if config.skip_unreadable:
        problems = _judgeable(problems, left)
    verifier_fingerprint(problems, config.reward, flag="--reward")
    wrong = _unjudgeable(problems)
    for error in wrong.values():
        refuse(error)
    problems = [problem for problem in problems if problem.id not in wrong]
    if left.first:
        logger.warning(
            f"left out: {left.count} rows that cannot be read or judged; the first: {left.first}"
        )
    if held_out is None and config.without is not None:
        held_out = read_problems(config.without)
    kept = without(problems, held_out or [])
    if len(kept) < len(problems):
        logger.warning(f"left out: {len(problems) - len(kept)} problems that are held out")
    if not kept:
        where = config.source or config.task
        raise UserError(f"{where}: no problem of split {config.split!r} is left")
    return kept


TEST_SHARE = 1 / 8
"""The share that is held out of a source that has no problems for tests of its own."""


class Apart(NamedTuple):
    """Settings of two problem files that share no problem, and what they hold, or will hold."""

    train: DataConfig
    test: DataConfig
    problems: Sequence[Problem]
    held_out: Sequence[Problem]


def keep_apart(train: DataConfig, test: DataConfig) -> Apart:
    """Makes sure that no problem is both trained on and held out.

    A source that has no split for tests gives the same problems for both: then a share of it is
    held out. Problems that two sources have in common are left out of training. Files that exist
    already are taken as they are, and refused where they overlap.
    """
    if train.out.exists() and test.out.exists():
        problems, held_out = read_problems(train.out), read_problems(test.out)
        refuse_overlap(problems, held_out, (str(train.out), str(test.out)))
        return Apart(train, test, problems, held_out)
    if train.source == test.source and train.test_share is None and test.test_share is None:
        asked = {question(problem) for problem in gather_problems(test)}
        if any(question(problem) in asked for problem in gather_problems(train)):
            logger.warning(
                f"{train.source}: has no problems for tests of its own; {TEST_SHARE:.1%} of it is "
                "held out, chosen by what is asked (another source for tests: --test-source)"
            )
            share = {"test_share": TEST_SHARE}
            train, test = train.model_copy(update=share), test.model_copy(update=share)
    train = train.model_copy(update={"without": test.out})
    held_out = gather_problems(test)
    problems = gather_problems(train, held_out)
    refuse_overlap(problems, held_out, (str(train.out), str(test.out)))
    return Apart(train, test, problems, held_out)


def _source_split(config: DataConfig) -> str:
    """The split that is read: the training split where a share of it makes the splits."""
    return config.split if config.test_share is None else "train"


def _of_share(problems: Iterator[Problem], config: DataConfig) -> Iterator[Problem]:
    """The problems of a split; where the config has a share, those in it or outside it."""
    if config.test_share is None:
        yield from problems
        return
    if config.split not in ("train", "test"):
        raise UserError(f"test_share makes the splits train and test, not {config.split!r}")
    for problem in problems:
        if is_held_out(problem, config.test_share) == (config.split == "test"):
            yield replace(problem, extra={**problem.extra, "split": config.split})


def _data_source(reward: str) -> str:
    """The `data_source` of problems that `reward`, a task's name or a function's, is to judge."""
    try:
        return get_task(reward).name
    except UserError:
        if ":" not in reward:
            raise
        return f"{REWARD_PREFIX}{reward}"


def _own_problems(
    config: DataConfig,
    columns: Columns,
    judge: str | None,
    refuse: Refuse,
    rows: Iterable[Mapping[str, Any]] | None,
) -> Iterator[Problem]:
    source = config.source if rows is None else rows
    if source is None:
        raise UserError(f"{OWN} problems need --source: a file or a hub data set's name")
    if config.size is not None:
        raise UserError(f"{OWN} problems have no sizes: they belong to made problems")
    if config.prompt_column and config.prompt_template:
        raise UserError("prompt_column and prompt_template both make the prompt: give one of them")
    needs_answer = judge is not None and not judge.startswith(REWARD_PREFIX)
    split = _source_split(config)
    problems = own_problems(source, split, columns, judge, needs_answer=needs_answer, refuse=refuse)
    return (replace(p, data_source=judge) if judge else p for p in problems)


def _task_problems(config: DataConfig) -> list[Problem]:
    task = get_task(config.task)
    limit = config.limit
    if isinstance(task, MadeTask | ReasoningGym):
        limit = DEFAULT_NUM_MADE if limit is None else limit
    problems = task.problems(
        source=config.source, split=_source_split(config), size=config.size, seed=config.seed
    )
    return list(islice(_of_share(problems, config), limit))


def _judgeable(problems: Sequence[Problem], left: Left) -> list[Problem]:
    """The problems whose reference answers their tasks can read; the others are counted."""
    kept = []
    for problem in problems:
        of_task = not problem.data_source.startswith(REWARD_PREFIX)
        if of_task and not get_task(problem.data_source).can_judge(problem.ground_truth):
            gold = f"{problem.ground_truth!r:.80}"
            left(UserError(f"{problem.data_source} cannot judge against {gold} of {problem.id}"))
        else:
            kept.append(problem)
    return kept


def _unjudgeable(problems: Sequence[Problem]) -> dict[str, UserError]:
    """What is wrong with reference answers that would be judged wrong, by the problems' ids.

    Those are of a user's own rows that a task judges, and of the problems of reasoning-gym, since
    some of its scorers run answers as code, which is refused here (see `grading/worker.py`).
    """
    stated = [(problem, _right_response(problem)) for problem in problems]
    checked = [(problem, response) for problem, response in stated if response is not None]
    with Grader(num_workers=1, timeout_s=GRADE_TIMEOUT_S) as grader:
        verdicts = grader.grade([p for p, _ in checked], [response for _, response in checked])
    wrong = [(p, v) for (p, _), v in zip(checked, verdicts, strict=True) if v.reward < 1]
    return {
        problem.id: UserError(
            f"{problem.data_source} cannot judge {len(wrong)} of {len(checked)} reference answers, "
            f"such as {problem.ground_truth!r:.80} of {problem.id} (status {verdict.status}, "
            f"reward {verdict.reward:g})"
        )
        for problem, verdict in wrong
    }


def _right_response(problem: Problem) -> str | None:
    """A response that states a problem's reference answer, where one is to be checked."""
    task = problem.data_source
    if task.startswith(GYM_PREFIX):
        return right_response(problem.ground_truth)
    if task.startswith(REWARD_PREFIX) or PROMPT_IS_TEXT not in problem.extra:
        return None
    return f"\\boxed{{{problem.ground_truth}}}\n#### {problem.ground_truth}"
