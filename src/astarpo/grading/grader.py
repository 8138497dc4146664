"""Judging responses: one way for stage 1, stage 2 and evaluation."""

from collections.abc import Callable, Sequence
from types import TracebackType

from astarpo.grading.pool import GradingPool
from astarpo.grading.reward import PREFIX, RewardFunction
from astarpo.grading.verifiers import Verifier, get_verifier, not_named, permitted_sources
from astarpo.types import Problem, Verdict


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
        self._permitted = permitted_sources(reward)
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
            if data_source.startswith(PREFIX) and data_source not in self._permitted:
                raise not_named(data_source)
            self._verifiers[data_source] = get_verifier(data_source)
        return self._verifiers[data_source]
