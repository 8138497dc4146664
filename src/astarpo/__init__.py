"""A*-PO: reinforcement learning for reasoning with one generation per prompt.

Each verb of the command line is a function here that takes its config. What needs torch is imported
when it is first used.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astarpo.compare import compare
    from astarpo.data import data
    from astarpo.demo import demo
    from astarpo.estimate import estimate
    from astarpo.evaluate import evaluate
    from astarpo.export import export
    from astarpo.import_values import import_values
    from astarpo.report import report
    from astarpo.run import run
    from astarpo.runs import runs
    from astarpo.sweep import sweep
    from astarpo.tasks import grade
    from astarpo.train import train
    from astarpo.value_table import ValueTable
    from astarpo.values import optimal_values
    from astarpo.warm_start import warm_start

_HOMES = {
    "ValueTable": "value_table",
    "compare": "compare",
    "data": "data",
    "demo": "demo",
    "estimate": "estimate",
    "evaluate": "evaluate",
    "export": "export",
    "grade": "tasks",
    "import_values": "import_values",
    "optimal_values": "values",
    "report": "report",
    "run": "run",
    "runs": "runs",
    "sweep": "sweep",
    "train": "train",
    "warm_start": "warm_start",
}

__all__ = [
    "ValueTable",
    "compare",
    "data",
    "demo",
    "estimate",
    "evaluate",
    "export",
    "grade",
    "import_values",
    "optimal_values",
    "report",
    "run",
    "runs",
    "sweep",
    "train",
    "warm_start",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'astarpo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"astarpo.{_HOMES[name]}"), name)


class _Package(ModuleType):
    """Keeps `astarpo.train` the function: importing the file of that name would replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
