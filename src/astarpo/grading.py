"""Judging responses: one way for stage 1, stage 2 and evaluation."""

import importlib.metadata
from collections.abc import Callable, Sequence
from types import TracebackType

from astarpo.tasks import Verifier, check_scorer, get_verifier
from astarpo.tasks.base import Task
from astarpo.tasks.gym import ReasoningGym
from astarpo.tasks.reward import PREFIX, RewardFunction
from astarpo.types import Problem, UserError, Verdict
from astarpo.verify.pool import GradingPool


class Grader:
    """Judges responses by their problems' tasks, in killable processes where a task asks for it.

    Use as a context manager: leaving it ends the processes.
    """

    def __init__(self, num_workers: int, timeout_s: float, reward: str | None = None) -> None:
        """Makes a grader; processes start when first needed.

        Args:
            num_workers: Processes.
            timeout_s: Limit for one answer, in seconds.
            reward: The reward function that the user named: no other is run.
        """
        self._let_pass = _let_pass(reward)
        self._pool = GradingPool(num_workers, timeout_s, own_rewards=True)
        self._verifiers: dict[str, Verifier] = {}

    def __enter__(self) -> "Grader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.close()

    def grade(
        self,
        problems: Sequence[Problem],
        responses: Sequence[str],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Verdict]:
        """Judges each response against its problem, in order.

        Args:
            problems: What was asked.
            responses: What was answered.
            should_stop: Asked a few times a second; where it says so, the call is given up.

        Raises:
            GradingStopped: `should_stop` said so.
            UserError: A problem asks for another reward function than the grader's, or its verifier
                cannot be loaded.
        """
        verdicts: list[Verdict | None] = [None] * len(problems)
        pooled = []
        for i, (problem, response) in enumerate(zip(problems, responses, strict=True)):
            verifier = self._verifier(problem.data_source)
            if isinstance(verifier, RewardFunction):
                pooled.append((i, (verifier.name, response, verifier.request(problem))))
            elif verifier.isolated:
                pooled.append((i, (verifier.name, response, problem.ground_truth)))
            else:
                verdicts[i] = verifier.grade(response, problem.ground_truth)
        for (i, _), verdict in zip(
            pooled, self._pool.grade([request for _, request in pooled], should_stop), strict=True
        ):
            verdicts[i] = verdict
        assert None not in verdicts
        return [v for v in verdicts if v is not None]

    def _verifier(self, data_source: str) -> Verifier:
        if data_source not in self._verifiers:
            if data_source.startswith(PREFIX) and data_source not in self._let_pass:
                raise _not_named(data_source)
            self._verifiers[data_source] = get_verifier(data_source)
        return self._verifiers[data_source]


def verifier_fingerprint(problems: Sequence[Problem], reward: str | None = None) -> dict[str, str]:
    """Versions of the verifiers that judge these problems, one entry a task.

    A problem file may come from anyone, and a reward function is code that runs with the file's
    columns as arguments. So nothing is loaded unless the user has named the same function.

    Args:
        problems: What is to be judged.
        reward: The function that the user named. Anything else in it counts as none.

    Raises:
        UserError: A problem asks for a function that the user did not name, nothing judges one of
            them, a function cannot (it does not load, or lacks a column that it asks for), a task
            cannot judge against a reference answer, or the scorer of a data set of reasoning-gym
            does not work here.
    """
    sources = {problem.data_source for problem in problems}
    for source in sorted(sources):
        if source.startswith(PREFIX) and source not in _let_pass(reward):
            raise _not_named(source)
    verifiers = {source: get_verifier(source) for source in sources}
    for source, verifier in verifiers.items():
        if isinstance(verifier, RewardFunction):
            verifier.check_columns(p for p in problems if p.data_source == source)
        else:
            if isinstance(verifier, ReasoningGym):
                check_scorer(source)
            _refuse_unjudgeable(verifier, [p for p in problems if p.data_source == source])
    versions = {verifier.name: verifier.version for verifier in verifiers.values()}
    return {f"verifier of {name}": version for name, version in sorted(versions.items())}


def _refuse_unjudgeable(task: Task | ReasoningGym, problems: Sequence[Problem]) -> None:
    wrong = [problem for problem in problems if not task.can_judge(problem.ground_truth)]
    if wrong:
        raise UserError(
            f"{task.name} cannot judge against {len(wrong)} of {len(problems)} reference answers, "
            f"the first {wrong[0].ground_truth!r:.80} of {wrong[0].id}: it wants {task.gold_form}; "
            "mend them, leave these problems out, or judge by a function of yours (--reward)"
        )


def _let_pass(reward: str | None) -> set[str]:
    """The data source that a reward function named by the user opens, if one is."""
    return {f"{PREFIX}{reward}"} if reward else set()


def _not_named(data_source: str) -> UserError:
    function = data_source.removeprefix(PREFIX)
    return UserError(
        f"the problem file asks to run the function {function!r:.200} to judge its answers: if it "
        "is yours, give --reward FILE.py:NAME, written as it is there; else do not use the file"
    )


def package_version() -> str:
    """The version of this package, for the record in artefacts."""
    return importlib.metadata.version("astarpo")
