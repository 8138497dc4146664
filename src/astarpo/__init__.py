"""A*-PO: reinforcement learning for reasoning with one generation per prompt.

    import astarpo

    problems = astarpo.load_problems("gsm8k")
    table = astarpo.estimate(model="Qwen/Qwen2.5-1.5B", problems=problems, samples=8)
    run = astarpo.train(model="Qwen/Qwen2.5-1.5B", problems=problems, values=table, steps=100)
    scores = astarpo.evaluate(model=run, problems=astarpo.load_problems("gsm8k", split="test"))
    scores["avg_at_4"].value

Each verb of the command line is a function here that takes its settings by name, or its config.
What needs torch is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astarpo.api.problems import ProblemSet
    from astarpo.api.results import Run, Scores
    from astarpo.api.verbs import (
        chat,
        compare,
        data,
        demo,
        env,
        estimate,
        evaluate,
        export,
        import_values,
        load_problems,
        plan,
        push,
        recipes,
        report,
        run,
        runs,
        sweep,
        train,
        warm_start,
    )
    from astarpo.grading.grade import grade
    from astarpo.types import StopTraining
    from astarpo.values.estimators import optimal_values
    from astarpo.values.table import ValueTable

    __version__: str

_HOMES = {
    "ProblemSet": "api.problems",
    "Run": "api.results",
    "Scores": "api.results",
    "StopTraining": "types",
    "ValueTable": "values.table",
    "chat": "api.verbs",
    "compare": "api.verbs",
    "data": "api.verbs",
    "demo": "api.verbs",
    "env": "api.verbs",
    "estimate": "api.verbs",
    "evaluate": "api.verbs",
    "export": "api.verbs",
    "grade": "grading.grade",
    "import_values": "api.verbs",
    "load_problems": "api.verbs",
    "optimal_values": "values.estimators",
    "plan": "api.verbs",
    "push": "api.verbs",
    "recipes": "api.verbs",
    "report": "api.verbs",
    "run": "api.verbs",
    "runs": "api.verbs",
    "sweep": "api.verbs",
    "train": "api.verbs",
    "warm_start": "api.verbs",
}

__all__ = [
    "ProblemSet",
    "Run",
    "Scores",
    "StopTraining",
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
    "load_problems",
    "optimal_values",
    "plan",
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
