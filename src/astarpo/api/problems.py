"""Problems as objects: of a task, of rows in memory, or of a `datasets.Dataset`."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from astarpo.config import DataConfig
from astarpo.config.base import is_function
from astarpo.config.documents import build
from astarpo.grading.reward import REWARD_PREFIX
from astarpo.runtime.given import hand_over, reference_of
from astarpo.runtime.remote import as_path
from astarpo.stages.data import gather_problems
from astarpo.tasks import TASKS, get_task, task_of
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import Problem, UserError

Reward = Callable[..., Any] | str
"""What judges: a function with TRL's signature, or the name of a task or of a function
(`FILE.py:NAME`, `MODULE:NAME`)."""

if TYPE_CHECKING:
    import datasets

    Rows: TypeAlias = Iterable[Mapping[str, Any]] | datasets.Dataset

    ProblemsLike: TypeAlias = "ProblemSet | Sequence[Problem] | Rows | Path | str"
    """What verbs take as problems; paths are of Parquet files that `astarpo data` wrote."""


@dataclass(frozen=True, repr=False)
class ProblemSet(Sequence[Problem]):
    """Problems, and what of the user's own judges them.

    Attributes:
        problems: In order.
        judges: Functions and tasks of the user's, by the `data_source` that they judge: objects,
            or the name of a function.

    Example:
        >>> problems = astarpo.load_problems("arithmetic", limit=100)
        >>> len(problems), problems[0].ground_truth
        (100, '22')
    """

    problems: Sequence[Problem]
    judges: Mapping[str, Any] = field(default_factory=dict)

    @overload
    def __getitem__(self, place: int) -> Problem: ...

    @overload
    def __getitem__(self, place: slice) -> "ProblemSet": ...

    def __getitem__(self, place: int | slice) -> "Problem | ProblemSet":
        """One problem, or those of a slice as a set of their own."""
        found = self.problems[place]
        return found if isinstance(found, Problem) else replace(self, problems=found)

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    def __repr__(self) -> str:
        if not self.problems:
            return "<no problems>"
        sources = ", ".join(dict.fromkeys(problem.data_source for problem in self))
        first = self.problems[0].prompt[-1]["content"].strip()
        return f"<{len(self)} problems judged by {sources}; the first: {first!r:.100}>"

    @property
    def function(self) -> str | None:
        """The reward function that the user let run, by name; None where a task judges."""
        names = [name for name in self.judges if name.startswith(REWARD_PREFIX)]
        return names[0].removeprefix(REWARD_PREFIX) if names else None

    def in_use(self) -> AbstractContextManager[None]:
        """Lets the judges be found, as the user's own call asks, while the block lasts."""
        return hand_over({n: each for n, each in self.judges.items() if not isinstance(each, str)})

    def save(self, path: Path | str) -> Path:
        """Writes them as a Parquet file, which `astarpo estimate` and others take too."""
        place = as_path(path)
        write_problems(place, self.problems)
        return place

    def judged_by(self, reward: Reward) -> "ProblemSet":
        """The same problems with another judge.

        Raises:
            UserError: The judge is no function and no task.
        """
        source, judge = _judge(reward)
        changed = tuple(replace(problem, data_source=source) for problem in self)
        return ProblemSet(changed, {} if judge is None else {source: judge})


def gathered(task: Any, settings: Mapping[str, Any]) -> ProblemSet:
    """The problems of a task or of rows; see `load_problems`.

    Args:
        task: A task's name, a task, or rows.
        settings: Of `astarpo.data`; `reward` and `without` may be objects.

    Raises:
        UserError: The task, source, split or reward is unknown, or a row cannot be read or judged.
    """
    settings = dict(settings)
    reward, without = settings.pop("reward", None), settings.pop("without", None)
    judges: dict[str, Any] = {}
    rows = None
    if not isinstance(task, str):
        if isinstance(task, type) or hasattr(task, "grade"):
            own = task_of(task)
            if own.name in TASKS:
                raise UserError(f"{own.name}: a task of this name ships; give yours another name")
            judges[own.name] = own
            task = own.name
        else:
            rows, task = rows_of(task), "own"
    if reward is not None:
        judge_source, judge = _judge(reward)
        judges = judges if judge is None else judges | {judge_source: judge}
        settings["reward"] = judge_source.removeprefix(REWARD_PREFIX)
    held_out = None if without is None else list(problems_of(without))
    # Nothing is written here; the config wants a name.
    settings |= {"task": task, "out": Path("problems.parquet")}
    if settings.get("source") is not None:
        settings["source"] = str(settings["source"])
    config = build(DataConfig, settings)
    try:
        with ProblemSet((), judges).in_use():
            found = ProblemSet(tuple(gather_problems(config, held_out, rows)), judges)
    except UserError as error:
        if rows is None:
            raise
        raise UserError(_as_arguments(str(error))) from error
    used = {problem.data_source for problem in found}
    return replace(found, judges={name: each for name, each in judges.items() if name in used})


def _as_arguments(complaint: str) -> str:
    """A complaint about rows in memory with arguments in the place of the command line's flags."""

    def argument(flag: re.Match[str]) -> str:
        return f"load_problems(rows, {flag[1].replace('-', '_')}=...)"

    return re.sub(r"(?<!\S)--([a-z]+(?:-[a-z]+)*)", argument, complaint)


def _judge(reward: Any) -> tuple[str, Any]:
    """The `data_source` of what a judge judges, and the judge, None where it is a known task."""
    if callable(reward) and not isinstance(reward, type):
        return f"{REWARD_PREFIX}{reference_of(reward)}", reward
    if isinstance(reward, str):
        if is_function(reward):
            return f"{REWARD_PREFIX}{reward}", reward
        return get_task(reward).name, None
    if isinstance(reward, type) or hasattr(reward, "grade"):
        task = task_of(reward)
        return task.name, task
    raise UserError(
        f"reward: a {type(reward).__name__} judges nothing: give a function such as "
        "def score(prompts, completions, **columns), a task's name, or 'FILE.py:NAME'"
    )


def problems_of(given: Any, reward: Reward | None = None) -> ProblemSet:
    """A set of whatever a verb was given as problems.

    Args:
        given: See `ProblemsLike`.
        reward: What judges them; else what they say.

    Raises:
        UserError: It is nothing that holds problems, or a row of it cannot be read.
    """
    if not isinstance(given, ProblemSet | str | Path):
        rows = rows_of(given)
        if not all(isinstance(row, Problem) for row in rows):
            return gathered(rows, {"reward": reward})
        given = ProblemSet(tuple(rows))
    found = given if isinstance(given, ProblemSet) else _read(given)
    return found if reward is None else found.judged_by(reward)


def _read(path: str | Path) -> ProblemSet:
    place = as_path(path)
    if str(path) in TASKS and not place.exists():
        raise UserError(
            f'no such file: {path}; for the task of this name give astarpo.load_problems("{path}")'
        )
    return ProblemSet(read_problems(place))


def rows_of(given: Any) -> list[Any]:
    """Rows in memory, by whatever holds them; raises UserError where nothing does."""
    if hasattr(given, "to_dict") and hasattr(given, "iterrows"):
        raise UserError('problems: of a data frame give its rows: frame.to_dict("records")')
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        kind = type(given).__name__
        advice = "one split of it" if isinstance(given, Mapping) else "a list of dicts"
        raise UserError(f"problems: a {kind} holds no rows: give {advice}, or load_problems(...)")
    rows = list(given)
    if not rows:
        raise UserError("problems: there are none in what is given")
    if wrong := [row for row in rows if not isinstance(row, Mapping | Problem)]:
        raise UserError(f"problems: {wrong[0]!r:.80} is no row: give a dict of columns for each")
    return rows
