"""The tasks by name."""

from astarpo.runtime.words import did_you_mean
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
from astarpo.tasks.gym import GYM_PREFIX, ReasoningGym
from astarpo.tasks.hellaswag import HellaSwag
from astarpo.tasks.math import Math
from astarpo.tasks.multiply import Multiply
from astarpo.types import UserError

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
            f"{did_you_mean(data_source, _BY_DATA_SOURCE)}"
        ) from None
