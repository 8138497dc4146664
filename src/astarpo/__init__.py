"""A*-PO: reinforcement learning for reasoning with one generation per prompt.

Each verb of the command line is a function here that takes its config. What needs torch is imported
when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astarpo.grading.grade import grade
    from astarpo.stages.data import data
    from astarpo.stages.estimate import estimate
    from astarpo.stages.evaluate import evaluate
    from astarpo.stages.train import train
    from astarpo.stages.warm_start import warm_start
    from astarpo.values.estimators import optimal_values
    from astarpo.values.table import ValueTable
    from astarpo.verbs.chat import chat
    from astarpo.verbs.compare import compare
    from astarpo.verbs.demo import demo
    from astarpo.verbs.env import env
    from astarpo.verbs.export import export
    from astarpo.verbs.import_values import import_values
    from astarpo.verbs.push import push
    from astarpo.verbs.recipes import recipes
    from astarpo.verbs.report import report
    from astarpo.verbs.run import run
    from astarpo.verbs.runs import runs
    from astarpo.verbs.sweep import sweep

    __version__: str

_HOMES = {
    "ValueTable": "values.table",
    "chat": "verbs.chat",
    "compare": "verbs.compare",
    "data": "stages.data",
    "demo": "verbs.demo",
    "env": "verbs.env",
    "estimate": "stages.estimate",
    "evaluate": "stages.evaluate",
    "export": "verbs.export",
    "grade": "grading.grade",
    "import_values": "verbs.import_values",
    "optimal_values": "values.estimators",
    "push": "verbs.push",
    "recipes": "verbs.recipes",
    "report": "verbs.report",
    "run": "verbs.run",
    "runs": "verbs.runs",
    "sweep": "verbs.sweep",
    "train": "stages.train",
    "warm_start": "stages.warm_start",
}

__all__ = [
    "ValueTable",
    "__version__",
    "chat",
    "compare",
    "data",
    "demo",
    "env",
    "estimate",
    "evaluate",
    "export",
    "grade",
    "import_values",
    "optimal_values",
    "push",
    "recipes",
    "report",
    "run",
    "runs",
    "sweep",
    "train",
    "warm_start",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("astarpo.runtime.version").package_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'astarpo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"astarpo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
