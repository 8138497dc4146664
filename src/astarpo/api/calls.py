"""From a call in Python to a verb's config: objects become paths and names, and are at hand."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astarpo.api.keywords import ON_OBJECTS, config_of, refuse_unknown
from astarpo.api.problems import ProblemSet, problems_of
from astarpo.api.results import Run
from astarpo.config import Config
from astarpo.config.documents import build
from astarpo.runtime.distributed import open_ranks
from astarpo.runtime.given import hand_over, reference_of
from astarpo.runtime.log import shown_log
from astarpo.types import UserError
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")


@dataclass(frozen=True)
class Call:
    """A verb's config, and what was given beside it.

    Attributes:
        config: Of the verb.
        problems: Those that are in no file yet, by the setting that names the file.
        on_step: The callback of `train`.
    """

    config: Any
    problems: Mapping[str, list[Any]]
    on_step: Callable[[dict[str, Any]], object] | None = None


@contextmanager
def call_of(verb: str, config: Config | None, settings: Mapping[str, Any]) -> Iterator[Call]:
    """What a call asks for; while the block lasts, its functions are at hand and the log is shown.

    Args:
        verb: The name of its function.
        config: All settings, or None.
        settings: What was given by name.

    Raises:
        UserError: A name or a value is wrong; the line says which.
    """
    config_class = config_of(verb)
    refuse_unknown(verb, settings)
    given = dict(settings)
    on_step = given.pop("on_step", None)
    if on_step is not None and not callable(on_step):
        raise UserError("on_step: a function that takes each step's metrics is wanted")
    with shown_log(), ExitStack() as held:
        if config is not None:
            _require_config(verb, config, config_class, given)
            yield Call(config, {}, on_step)
            return
        given = {name: _as_text(name, value) for name, value in given.items()}
        if verb == "train":
            _hand_over_algorithm(given, held)
        if verb in ON_OBJECTS:
            problems = _with_problems(verb, given, held)
        else:
            problems = {}
            _write_problems(given, held)
        call = Call(build(config_class, given), problems, on_step)
        if settings.get("out") is None and verb in ON_OBJECTS:
            logger.info(f"{verb}: writes to {call.config.out} (another place: out=)")
        yield call


def _require_config(
    verb: str, config: Any, config_class: type[Config], given: Mapping[str, Any]
) -> None:
    if not isinstance(config, config_class):
        raise UserError(
            f"{verb}: give its settings by name, such as {_first_wanted(config_class)}="
            f"..., or as one {config_class.__name__}; a {type(config).__name__} came without a name"
        )
    if given:
        raise UserError(
            f"{verb}: {', '.join(given)} beside a {config_class.__name__}: put all settings into "
            "it, or give all by name"
        )


def _first_wanted(config_class: type[Config]) -> str:
    """The first setting that has to be given; the first of all where none has to be."""
    fields = config_class.model_fields
    return next((name for name, field in fields.items() if field.is_required()), next(iter(fields)))


def _as_text(name: str, value: Any) -> Any:
    """A path or a name in the place of an object that has one."""
    if name in ("model", "reference"):
        if isinstance(value, Run):
            return str(value.model_path)
        if isinstance(value, Path):
            return str(value)
        if value is not None and not isinstance(value, str):
            raise UserError(
                f"{name}: give a folder, a hub name or a Run, not a {type(value).__name__}; one "
                "that is loaded can be written by save_pretrained(FOLDER), its tokenizer too"
            )
    if isinstance(value, Run | ValueTable):
        return value.path
    if name == "runs":
        several = value if isinstance(value, list | tuple) else [value]
        return [each.path if isinstance(each, Run) else each for each in several]
    return value


def _hand_over_algorithm(given: dict[str, Any], held: ExitStack) -> None:
    algorithm = given.get("algorithm")
    if algorithm is None or isinstance(algorithm, str):
        return
    given["algorithm"] = reference_of(algorithm)
    held.enter_context(hand_over({given["algorithm"]: algorithm}))


def _with_problems(verb: str, given: dict[str, Any], held: ExitStack) -> dict[str, list[Any]]:
    """Sets `out` and the files of problems; returns those that are in no file yet."""
    reward = given.pop("reward", None)
    out = _new_place(verb) if given.get("out") is None else Path(given["out"])
    sets = {
        name: problems_of(given[name], reward)
        for name in ("problems", "eval_problems")
        if given.get(name) is not None and not _is_file(given[name], reward)
    }
    functions = {each.function for each in sets.values()} - {None}
    if len(functions) > 1:
        raise UserError(
            f"problems and eval_problems are judged by {' and '.join(sorted(map(str, functions)))}:"
            " give reward= one function for both"
        )
    for each in sets.values():
        held.enter_context(each.in_use())
    for name in sets:
        place = out / f"{name}.parquet"
        given[name] = out.with_name(f"{out.stem}-{place.name}") if verb == "evaluate" else place
    given |= {"out": out, "trust_reward": next(iter(functions), None)}
    return {name: list(each) for name, each in sets.items()}


def _is_file(given: Any, reward: Any) -> bool:
    return reward is None and isinstance(given, str | Path) and Path(given).exists()


def _new_place(verb: str) -> Path:
    """A folder that is not there yet, named after the verb and the time; a file for scores.

    Of several ranks the first one names it.
    """
    with open_ranks() as where:
        return where.first(lambda: _free_place(verb))


def _free_place(verb: str) -> Path:
    name = f"runs/{verb}-{time.strftime('%Y%m%d-%H%M%S')}"
    places = [name, *(f"{name}-{number}" for number in range(2, 1000))]
    folder = next(Path(place) for place in places if not Path(place).exists())
    return folder / "scores.json" if verb == "evaluate" else folder


def _write_problems(given: dict[str, Any], held: ExitStack) -> None:
    """Writes problems in memory to a file that lasts as long as the call."""
    if "problems" in given and not isinstance(given["problems"], str | Path):
        folder = held.enter_context(tempfile.TemporaryDirectory())
        problems: ProblemSet = problems_of(given["problems"])
        given["problems"] = problems.save(Path(folder) / "problems.parquet")
