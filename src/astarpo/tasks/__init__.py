"""The tasks by name, and judging one response."""

import atexit
from functools import cache

from astarpo.tasks.arithmetic import Arithmetic
from astarpo.tasks.base import Task
from astarpo.tasks.benchmarks import (
    Aime24,
    Aime25,
    Amc23,
    Hmmt,
    Math500,
    MinervaMath,
    OlympiadBench,
)
from astarpo.tasks.countdown import Countdown
from astarpo.tasks.gsm8k import Gsm8k
from astarpo.tasks.gym import PREFIX as GYM_PREFIX
from astarpo.tasks.gym import ReasoningGym
from astarpo.tasks.hellaswag import HellaSwag
from astarpo.tasks.math import Math
from astarpo.tasks.multiply import Multiply
from astarpo.tasks.reward import PREFIX as REWARD_PREFIX
from astarpo.tasks.reward import RewardFunction
from astarpo.types import UserError, Verdict
from astarpo.verify.pool import GradingPool

GRADE_TIMEOUT_S = 10.0
"""Limit of `grade`: what takes longer is not going to end."""

Verifier = Task | ReasoningGym | RewardFunction
"""What judges problems of one `data_source`."""

_ALL: tuple[Task, ...] = (
    *(Arithmetic(), Multiply(), Countdown(), Gsm8k(), Math()),
    *(Math500(), MinervaMath(), OlympiadBench(), Amc23(), Aime24(), Aime25(), Hmmt(), HellaSwag()),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}

_BY_DATA_SOURCE: dict[str, Task] = TASKS | {
    alias: task for task in TASKS.values() for alias in task.aliases
}


def get_task(data_source: str) -> Task | ReasoningGym:
    """Returns the task of a name or alias, or a data set of reasoning-gym.

    Raises:
        UserError: There is none.
    """
    if data_source.startswith(GYM_PREFIX):
        return ReasoningGym(data_source)
    try:
        return _BY_DATA_SOURCE[data_source]
    except KeyError:
        known = ", ".join(_BY_DATA_SOURCE)
        raise UserError(
            f"unknown task or data source {data_source!r}; known: {known}, {GYM_PREFIX}NAME"
        ) from None


def get_verifier(data_source: str) -> Verifier:
    """Returns what judges the problems of a data source: a task, or a user's reward function.

    Not cached: a reward function's file may change.

    Raises:
        UserError: There is none, or the user's function cannot be loaded.
    """
    if data_source.startswith(REWARD_PREFIX):
        return RewardFunction(data_source)
    return get_task(data_source)


def grade(task: str, response: str, gold: str) -> Verdict:
    """Judges one response, safely: what could hang runs in a worker process with a time limit.

    For many responses use a `GradingPool`.

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
    """Sees to it that a data set of reasoning-gym can be judged where model output is.

    Raises:
        UserError: It cannot.
    """
    _pool_of_one().load(data_set)


@cache
def _pool_of_one() -> GradingPool:
    pool = GradingPool(num_workers=1, timeout_s=GRADE_TIMEOUT_S)
    atexit.register(pool.close)
    return pool
