"""Judging many responses: the one way for stage 1, stage 2 and evaluation."""

from collections.abc import Callable, Sequence

from astarpo.grading.pool import GradingPool
from astarpo.grading.processes import GradingRequest
from astarpo.grading.reward import RewardFunction
from astarpo.grading.verifiers import Verifier, get_verifier, permitted_sources, refuse_unnamed
from astarpo.types import Problem, Verdict


class Grader:
    r"""Judges each response by its problem's verifier.

    Verifiers that could hang, and reward functions, run in worker processes with a time limit; the
    others run here. Use it as a context manager: leaving it ends the processes.

    Example:
        >>> from astarpo.grading.grader import Grader
        >>> from astarpo.types import Problem
        >>> prompt = ({"role": "user", "content": "What is half of x?"},)
        >>> problem = Problem("1", data_source="math", prompt=prompt, ground_truth=r"\frac{x}{2}")
        >>> with Grader(num_workers=2, timeout_s=5.0) as grader:
        ...     verdicts = grader.grade([problem] * 2, [r"\boxed{0.5 x}", r"\boxed{2x}"])
        >>> [verdict.reward for verdict in verdicts]
        [1.0, 0.0]
    """

    def __init__(self, num_workers: int, timeout_s: float, reward: str | None = None) -> None:
        """Makes a grader; processes start when they are first needed.

        Args:
            num_workers: How many answers are judged at once.
            timeout_s: CPU time for one answer, in seconds; see `GradingPool`.
            reward: The reward function that the user named, `FILE.py:NAME`; no other is run.
        """
        self._permitted = permitted_sources(reward)
        self._pool = GradingPool(num_workers, timeout_s, own_rewards=True)
        self._verifiers: dict[str, Verifier] = {}

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def grade(
        self,
        problems: Sequence[Problem],
        responses: Sequence[str],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Verdict]:
        """Judges each response against its problem, in order.

        Args:
            problems: What was asked, one for each response.
            responses: What the model wrote, without the prompts.
            should_stop: Asked a few times a second; once it says yes, the call is given up.

        Raises:
            GradingStopped: `should_stop` said yes.
            UserError: A problem asks for another reward function than the grader's, or its verifier
                cannot be loaded.
        """
        verdicts: dict[int, Verdict] = {}
        for_pool: dict[int, GradingRequest] = {}
        for i, (problem, response) in enumerate(zip(problems, responses, strict=True)):
            verifier = self._verifier(problem.data_source)
            is_own = isinstance(verifier, RewardFunction)
            against = verifier.request(problem) if is_own else problem.ground_truth
            if verifier.isolated:
                for_pool[i] = (verifier.name, response, against)
            else:
                verdicts[i] = verifier.grade(response, against)
        judged = self._pool.grade([*for_pool.values()], should_stop)
        verdicts |= zip(for_pool, judged, strict=True)
        return [verdicts[i] for i in range(len(problems))]

    def _verifier(self, data_source: str) -> Verifier:
        if data_source not in self._verifiers:
            refuse_unnamed(data_source, self._permitted)
            self._verifiers[data_source] = get_verifier(data_source)
        return self._verifiers[data_source]
