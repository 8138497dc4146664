"""Judging one response: `astarpo.grade`."""

import atexit
from functools import cache

from astarpo.grading.pool import GradingPool
from astarpo.tasks import get_task
from astarpo.types import Verdict

GRADE_TIMEOUT_S = 10.0
"""CPU time that `grade` allows for one answer: far more than any verifier that ships needs."""


def grade(task: str, response: str, gold: str) -> Verdict:
    r"""Judges one response, safely: what could hang runs in a worker process with a time limit.

    For many responses use a `Grader`, which judges several at once.

    Example:
        >>> import astarpo
        >>> astarpo.grade("gsm8k", "Six times three is 18.\n#### 18", gold="18")
        Verdict(reward=1.0, answer='18', status='ok')
        >>> astarpo.grade("math", r"So it is $\boxed{x/2}$.", gold=r"\frac{x}{2}")
        Verdict(reward=1.0, answer='x/2', status='ok')

    Args:
        task: A task's name, or a `data_source` that means it.
        response: What the model wrote, without the prompt.
        gold: The reference answer in the task's own notation.

    Raises:
        UserError: The task is unknown.
    """
    judge = get_task(task)
    if judge.isolated:
        return _pool_of_one().grade([(judge.name, response, gold)])[0]
    return judge.grade(response, gold)


def check_scorer(data_set: str) -> None:
    """Refuses a data set of reasoning-gym that cannot be judged in a worker process."""
    _pool_of_one().load(data_set)


@cache
def _pool_of_one() -> GradingPool:
    pool = GradingPool(num_workers=1, timeout_s=GRADE_TIMEOUT_S)
    atexit.register(pool.close)
    return pool
