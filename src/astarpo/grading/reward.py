"""A user's own reward function as a verifier, with the signature that TRL made known.

    def score(prompts, completions, **columns) -> list[float]

It is named `FILE.py:NAME` or `MODULE:NAME`; a problem whose `data_source` is `reward:` and that
name is judged by it in every stage. A function that a call in Python was given has such a name too
(`__main__:score`) as long as the call lasts. It gets one response a call. Where the problem's
prompt is a list of messages, the prompt is passed as that list and the completion as
`[{"role": "assistant", "content": ...}]`; where it came as text, both are text.
"""

import asyncio
import hashlib
import importlib
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from astarpo.runtime.given import given, is_given_only
from astarpo.tasks.own import PROMPT_IS_TEXT
from astarpo.types import Problem, UserError, Verdict

REWARD_PREFIX = "reward:"


class RewardFunction:
    """A verifier that calls a user's function. It is the user's code: making one imports it.

    Example:
        In `rewards.py` of the working directory:

            def score(prompts, completions, ground_truth, **columns):
                return [float(truth in text) for truth, text in zip(ground_truth, completions)]

        A problem names it as its `data_source`; `request` is what crosses into a worker process:

        >>> from astarpo.grading.reward import RewardFunction
        >>> from astarpo.types import Problem
        >>> function = RewardFunction("reward:rewards.py:score")
        >>> prompt = ({"role": "user", "content": "How many?"},)
        >>> problem = Problem("1", function.name, prompt, "18", extra={"prompt_is_text": True})
        >>> function.grade("There are 18.", function.request(problem))
        Verdict(reward=1.0, answer=None, status='ok')

    Attributes:
        name: The `data_source` it judges.
        version: Digest of the function's source file, which is part of a value table's fingerprint.
            What that file imports is not. Of a function given in Python, a digest of its code.
    """

    isolated = True

    def __init__(self, data_source: str) -> None:
        """Loads the function.

        Raises:
            UserError: There is no such file, module or function, or importing it fails.
        """
        self.name = data_source
        self._reference = data_source.removeprefix(REWARD_PREFIX)
        try:
            self._function, self.version = _find(data_source, self._reference)
            parameters = inspect.signature(self._function).parameters.values()
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            raise UserError(f"reward {self._reference}: cannot be loaded ({error!r})") from error
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._takes = {p.name for p in named}
        self._needs = {p.name for p in named if p.default is p.empty} - {"prompts", "completions"}

    def check_columns(self, problems: Iterable[Problem]) -> None:
        """Refuses a problem that lacks a column which the function's parameters name."""
        for problem in problems:
            columns = _columns(problem)
            if lacking := sorted(self._needs - columns.keys()):
                raise UserError(
                    f"reward {self._reference}: needs {', '.join(lacking)}, which problem "
                    f"{problem.id} lacks; its columns are {', '.join(columns)}"
                )

    def request(self, problem: Problem) -> str:
        """What `grade` needs to know of a problem, as JSON. Dates and the like become text."""
        if problem.extra.get(PROMPT_IS_TEXT):
            prompt: Any = problem.prompt[-1]["content"]
        else:
            prompt = problem.prompt
        return json.dumps({"prompt": prompt, "columns": _columns(problem)}, default=str)

    def grade(self, response: str, request: str) -> Verdict:
        """Calls the function with one response.

        Raises:
            ValueError: It did not return one finite number. What it raises itself passes through.
        """
        asked = json.loads(request)
        prompt = asked["prompt"]
        is_text = isinstance(prompt, str)
        completion = response if is_text else [{"role": "assistant", "content": response}]
        passed = {name: [value] for name, value in asked["columns"].items()}
        passed |= {"prompts": [prompt], "completions": [completion]}
        if not self._takes_all:
            passed = {name: value for name, value in passed.items() if name in self._takes}
        returned = self._function(**passed)
        if inspect.iscoroutine(returned):
            returned = asyncio.run(returned)
        return Verdict(_only_number(returned), None, "ok")


def _columns(problem: Problem) -> dict[str, Any]:
    own = {name: value for name, value in problem.extra.items() if name != PROMPT_IS_TEXT}
    # A column of the user's wins over ours of the same name.
    return {"id": problem.id, "ground_truth": problem.ground_truth} | own


def _only_number(returned: Sequence[Any]) -> float:
    if isinstance(returned, str) or not hasattr(returned, "__len__") or len(returned) != 1:
        raise ValueError(f"returned {returned!r:.80}, not a list with one number a completion")
    (reward,) = returned
    if reward is None:
        raise ValueError("returned None (not applicable), but nothing else judges the problem")
    if isinstance(reward, str) or not math.isfinite(number := float(reward)):
        raise ValueError(f"returned {reward!r:.80}, not a finite number")
    return number


def reward_file(reward: str | None) -> str | None:
    """The file that a function named `FILE.py:NAME` is in; None for what is in no such file."""
    where = (reward or "").rpartition(":")[0]
    return where if where.endswith(".py") else None


def _find(data_source: str, reference: str) -> tuple[Callable[..., Any], str]:
    """The function of a name, and its version."""
    if found := given(data_source):
        return found.value, found.version
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        raise UserError(f"reward {reference!r}: name a function as FILE.py:NAME or MODULE:NAME")
    if is_given_only(reference):
        raise UserError(
            f"reward {reference}: this function was given in Python and is in no file: give it "
            "again there, as reward= of the same call"
        )
    source, module = _load_file(where) if where.endswith(".py") else _load_module(where)
    version = f"blake2b {hashlib.blake2b(source, digest_size=12).hexdigest()}"
    return attrgetter(attribute)(module), version


def _load_file(name: str) -> tuple[bytes, ModuleType]:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"reward {name}: no such file in {os.getcwd()}")
    path = path.resolve()
    search_also([str(path.parent)])
    source = path.read_bytes()
    # Not by the import system: its cache of compiled files can be older than the digest.
    module = ModuleType(f"astarpo_reward_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec"), module.__dict__)
    return source, module


def _load_module(name: str) -> tuple[bytes, ModuleType]:
    search_also([os.getcwd()])
    module = importlib.import_module(name)
    if module.__file__ is None or not module.__file__.endswith(".py"):
        raise UserError(f"reward {name}: has no source file whose digest could be recorded")
    return Path(module.__file__).read_bytes(), module


def search_also(folders: Iterable[str]) -> None:
    """Lets modules be found in folders too, after all that are searched already."""
    sys.path += [folder for folder in folders if folder not in sys.path]
