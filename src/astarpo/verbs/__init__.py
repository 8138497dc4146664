"""What the command line does beside the stages: one verb and one function a file.

Which module each verb's function is in, stages included, is said here. Nothing is imported for it.
"""

import importlib
from types import ModuleType

_STAGES = ("data", "warm_start", "estimate", "train", "evaluate")


def verb_home(verb: str) -> ModuleType:
    """The module that has the function of a verb, which takes its config, and its `preview`."""
    name = verb.replace("-", "_")
    room = "stages" if name in _STAGES else "verbs"
    return importlib.import_module(f"astarpo.{room}.{name}")
