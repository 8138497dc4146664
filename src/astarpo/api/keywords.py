"""What the verbs take by name, from the settings' own declarations: signatures, help, complaints.

Editors read `verbs.pyi`, which is written from `stub_of` (`python -m tests.support.stub`); `help()`
and notebooks read `__signature__` and `__doc__`. Both say what `config/` says.
"""

import difflib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

from astarpo.config import VERBS, Config
from astarpo.config.setting import Group, setting_of
from astarpo.types import UserError

ON_OBJECTS = ("estimate", "train", "evaluate")
"""The verbs whose `out` may be left out, and which take a `reward` as it is."""

_TYPES = {
    "model": "str | Path | Run",
    "reference": "str | Path | Run",
    "problems": "ProblemsLike",
    "eval_problems": "ProblemsLike",
    "values": "ValueTable | Path | str",
    "table": "ValueTable | Path | str",
    "runs": "Sequence[Run | Path | str]",
    "reward": "Reward",
    "without": "ProblemsLike",
}
"""Types of what may be an object where a setting is text."""

_ALGORITHM = "type[Algorithm] | Algorithm | str"

_HELP = {
    "problems": "Problems: of `load_problems`, a list of dicts, a `datasets.Dataset`, or the "
    "Parquet file that `astarpo data` wrote.",
    "eval_problems": "Held-out problems to answer while training, outside the measured time, given "
    "like `problems`.",
    "reward": "What judges: a function of yours, `score(prompts, completions, **columns)`, which "
    "returns one number a completion, also one of a notebook or inside another function; or a "
    "task's name, or 'FILE.py:NAME'. Else what the problems say. Completions are text where the "
    "prompts came as text, else lists of one message. It runs in processes that can be killed.",
    "out": "{} Else a new one in runs/, which the log names.",
    "without": "Held-out problems, given like those of `estimate`: problems that ask the same are "
    "left out.",
    "algorithm": "{} Or a class or instance of yours, derived from "
    "`astarpo.algorithms.base.Algorithm`.",
    "on_step": "Called with each step's metrics, once they are on disk. It may raise "
    "`astarpo.StopTraining` to end training after that step; what else it raises passes through, "
    "and the same call with resume=True goes on from the last checkpoint.",
}

_CONFIG_LINE = "    config: All settings as one object, in the place of the others.\n"
_TASK_LINE = """\
    task: A task's name, such as `gsm8k`, or `own` for rows in a file; a task of your own; or
        rows: a list of dicts or a `datasets.Dataset`.
"""

_LIKE = {"load_problems": "data"}
"""What takes the settings of a verb, beside a first argument of its own."""


@dataclass(frozen=True)
class Keyword:
    """An argument of a verb.

    Attributes:
        name: Its name.
        type: Its type, as Python source.
        help: What it means.
        default: `inspect.Parameter.empty` where it has to be given.
    """

    name: str
    type: str
    help: str
    default: Any


def keywords_of(verb: str) -> dict[str, Keyword]:
    """What a verb takes by name; what has to be given comes first."""
    found = []
    shared = _shared(verb)
    for field_name, field in sorted(_fields(verb).items(), key=lambda item: item[0] in shared):
        name = "reward" if verb in ON_OBJECTS and field_name == "trust_reward" else field_name
        is_object = name in _TYPES and (verb != "data" or name == "without")
        kind = _TYPES[name] if is_object else _source(field.annotation)
        kind = _ALGORITHM if name == "algorithm" and verb == "train" else kind
        default = inspect.Parameter.empty if field.is_required() else field.default
        default = None if name == "out" and verb in ON_OBJECTS else default
        if default is None and "None" not in kind:
            kind = f"{kind} | None"
        found.append(Keyword(name, kind, _help(verb, name, str(field.description)), default))
    if verb == "train":
        kind = "Callable[[dict[str, Any]], object] | None"
        found.append(Keyword("on_step", kind, _HELP["on_step"], None))
    files = {n for n, field in _fields(verb).items() if setting_of(field).group is Group.FILES}
    is_free = {each.name: each.default is not inspect.Parameter.empty for each in found}
    found.sort(key=lambda each: (is_free[each.name], each.name not in {*files, "reward"}))
    return {each.name: each for each in found}


def config_of(verb: str) -> type[Config]:
    """The config of a verb by the name of its function."""
    return VERBS[_LIKE.get(verb, verb.replace("_", "-"))]


def _fields(verb: str) -> dict[str, FieldInfo]:
    left_out = ("task", "out", "overwrite") if verb in _LIKE else ()
    return {n: f for n, f in config_of(verb).model_fields.items() if n not in left_out}


def _shared(verb: str) -> set[str]:
    """The settings that a verb has in common with others; they come last."""
    return _fields(verb).keys() - vars(config_of(verb))["__annotations__"].keys()


def _help(verb: str, name: str, said: str) -> str:
    said = re.sub(r"--([a-z][a-z0-9-]*)", lambda flag: flag[1].replace("-", "_"), said)
    said = " ".join(said.split())
    ours = _HELP.get(name) if verb in (*ON_OBJECTS, *_LIKE) else None
    return ours.format(said) if ours else said


def _source(annotation: Any) -> str:
    """A type as it is written in Python."""
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if annotation is type(None):
        return "None"
    if annotation is Path:
        return "Path | str"
    if origin is Literal:
        return f"Literal[{', '.join(map(_quoted, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_source, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_source, arguments))}]"
    return "..." if annotation is ... else annotation.__name__


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def described(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Puts the settings of a verb into its signature and docstring, for `help` and notebooks."""
    keywords = keywords_of(verb.__name__).values()
    signature = inspect.signature(verb)
    (first, *_) = signature.parameters.values()
    kind = f"{config_of(verb.__name__).__name__} | None" if first.name == "config" else _TASK
    parameters = [first.replace(annotation=_Source(kind))]
    for each in keywords:
        shown = {"default": each.default, "annotation": _Source(each.type)}
        parameters.append(inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, **shown))
    vars(verb)["__signature__"] = signature.replace(parameters=parameters)
    first_line = _CONFIG_LINE if first.name == "config" else _TASK_LINE
    verb.__doc__ = _document(inspect.cleandoc(verb.__doc__ or ""), first_line, keywords)
    return verb


_TASK = "str | Task | type[Task] | Rows"


class _Source(str):
    """Python source that shows without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _document(text: str, first_line: str, keywords: Iterable[Keyword]) -> str:
    """A docstring with a line for each argument, before its first other section."""
    arguments = [
        textwrap.fill(
            f"{each.name}: {each.help}", 96, initial_indent="    ", subsequent_indent=" " * 8
        )
        for each in keywords
    ]
    head, _, rest = text.partition("\n\nReturns:")
    rest = f"\n\nReturns:{rest}" if rest else ""
    return f"{head}\n\nArgs:\n{first_line}" + "\n".join(arguments) + rest


def stub_of(verbs: Mapping[str, Callable[..., Any]]) -> str:
    """`verbs.pyi`: for each verb one signature that takes a config, and one that takes names."""
    configs = sorted({config_of(verb).__name__ for verb in verbs})
    parts = [_HEAD.format(configs="".join(f"    {name},\n" for name in configs))]
    for name, verb in verbs.items():
        returned = _source(inspect.signature(verb).return_annotation)
        more = ", *, on_step: Callable[[dict[str, Any]], object] | None = None"
        more *= name == "train"
        first = f"    task: {_TASK},\n    /,\n"
        if name not in _LIKE:
            first = ""
            parts.append(
                f"@overload\ndef {name}(config: {config_of(name).__name__}, /{more}) -> "
                f"{returned}: ...\n@overload"
            )
        keywords = [f"    {_parameter(each)},\n" for each in keywords_of(name).values()]
        parts.append(
            f"def {name}(\n{first}"
            + "".join(["    *,\n", *keywords] if keywords else [])
            + f') -> {returned}:\n    """'
            + textwrap.indent(_without_config(str(verb.__doc__)), "    ").strip()
            + '\n    """\n    ...\n'
        )
    return "\n".join(parts)


def _without_config(text: str) -> str:
    """A docstring without the config, and without a list of arguments if that is all of it."""
    return text.replace(_CONFIG_LINE, "").removesuffix("\n\nArgs:\n")


def _parameter(keyword: Keyword) -> str:
    if keyword.default is inspect.Parameter.empty:
        return f"{keyword.name}: {keyword.type}"
    default = keyword.default
    shown = f'Path("{default}")' if isinstance(default, Path) else _quoted(default)
    return f"{keyword.name}: {keyword.type} = {shown}"


_HEAD = '''\
"""What editors show of the verbs. Written by `python -m tests.support.stub` from `config/`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from astarpo.algorithms.base import Algorithm
from astarpo.api.problems import ProblemSet, ProblemsLike, Reward, Rows
from astarpo.api.results import Run, Scores
from astarpo.config import (
{configs})
from astarpo.tasks.base import Task
from astarpo.values.table import ValueTable
'''


def refuse_unknown(verb: str, names: Iterable[str]) -> None:
    """Refuses names that a verb does not take, and says which is meant.

    Raises:
        UserError: There is one.
    """
    known = keywords_of(verb)
    for name in names:
        if name in known:
            continue
        raise UserError(
            f"{verb}: takes no {name!r}{_meant(name, known)} (help(astarpo.{verb}) lists all)"
        )


def _meant(name: str, known: Mapping[str, Keyword]) -> str:
    """Names that are spelt alike, or else what is explained in these words, the shortest first."""
    close = difflib.get_close_matches(name, [*known, "trust_reward"], 3)
    close = ["reward" if each == "trust_reward" else each for each in close]
    if not close:
        words = name.replace("_", " ").casefold()
        about = [each for each in known.values() if words in each.help.casefold()]
        close = [each.name for each in sorted(about, key=lambda each: len(each.help))][:1]
    return f"; did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""
