"""The tasks by name: those that are shipped, those of other packages, and one given in Python.

A package of its own adds a task by an entry point, whose name is the task's:

    [project.entry-points."astarpo.tasks"]
    parity = "my_package.tasks:Parity"
"""

from typing import Any

from astarpo.runtime.given import given
from astarpo.runtime.plugins import load_plugin, plugin_names
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


PLUGINS = "astarpo.tasks"
"""The group of entry points by which other packages add tasks."""

_loaded: dict[str, Task] = {}


def get_task(data_source: str) -> Task | ReasoningGym:
    """Returns the task of a name or alias, or a data set of reasoning-gym.

    Raises:
        UserError: There is none, or another package's cannot be loaded.
    """
    if data_source.startswith(GYM_PREFIX):
        return ReasoningGym(data_source)
    if data_source in _BY_DATA_SOURCE:
        return _BY_DATA_SOURCE[data_source]
    if found := given(data_source):
        return found.value
    if data_source in plugin_names(PLUGINS):
        if data_source not in _loaded:
            task = load_plugin(PLUGINS, data_source)
            _loaded[data_source] = task_of(task)
        return _loaded[data_source]
    known = ", ".join([*_BY_DATA_SOURCE, *plugin_names(PLUGINS)])
    raise UserError(
        f"unknown task or data source {data_source!r}; known: {known}, {GYM_PREFIX}NAME"
        f"{did_you_mean(data_source, [*_BY_DATA_SOURCE, *plugin_names(PLUGINS)])}"
    )


def task_of(task: Any) -> Task:
    """A task, of a class or an instance of one, once it is seen to have what a task has.

    Raises:
        UserError: It lacks something, or the class cannot be made without arguments.
    """
    try:
        task = task() if isinstance(task, type) else task
    except Exception as error:  # whatever the user's class raises
        name = getattr(task, "__qualname__", task)
        raise UserError(f"{name}: cannot be made without arguments ({error})") from error
    if lacking := [name for name in _PARTS if not hasattr(task, name)]:
        raise UserError(
            f"{type(task).__qualname__}: is no task, for it has no {', '.join(lacking)}; see "
            "help(astarpo.tasks.base.Task)"
        )
    return task


_PARTS = ("name", "aliases", "version", "isolated", "gold_form", "problems", "can_judge", "grade")
