"""Where settings come from: config files and recipes, and what of them is for which verb.

A config file (TOML or JSON) holds settings at its top level, which serve every verb that knows
them, and tables named after verbs for what concerns one alone. So one recipe serves all verbs, and
the `config.json` that a run leaves behind repeats it.
"""

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from astarpo.config import VERBS, Config, EvaluateConfig, ResourcesConfig
from astarpo.config.base import is_function
from astarpo.config.setting import ALGORITHM_NAMES
from astarpo.config.train import ALGORITHM_PLUGINS, readers
from astarpo.runtime.plugins import plugin_names
from astarpo.runtime.words import did_you_mean
from astarpo.types import UserError

C = TypeVar("C", bound=Config)

TABLES: dict[str, str] = (
    {verb: verb for verb in VERBS}
    | dict.fromkeys(("test", "warm-data", "ood"), "data")
    | {"resources": "plan"}
    | dict.fromkeys(("variants", *ALGORITHM_NAMES), "train")
)
"""Tables of a document, by the verb whose settings they hold: each verb's own, and in recipes what
differs from `[data]` for other problems (see `verbs/run.py`), or from `[train]` for an algorithm or
a variant (see `experiments/plan.py`). `[resources]` says which machines a recipe is for."""

_REMOVED = {"center": False, "policy_scale": False, "residual_clip": None}
"""Settings of version 0.1.0 that are gone, with their defaults."""


ENVIRONMENT = "environment"
"""The table of a run's `config.json` that says where it ran. It holds no settings."""

_MOST_SHOWN = 200
"""Characters of a wrong value that a message repeats."""


def build(
    config_class: type[C], settings: Mapping[str, Any], named: Callable[[str], str] = str
) -> C:
    """Makes a config of settings; raises UserError with all that is wrong with them in one line.

    Args:
        config_class: What is made.
        settings: By the names of its fields.
        named: What a message calls a setting: the command line says `--max-new-tokens`.
    """
    try:
        return config_class.model_validate(dict(settings))
    except ValidationError as error:
        wrong = [p for p in error.errors() if p["type"] != "missing"]
        complaints = [_complaint(config_class, problem, named) for problem in wrong]
        missing = [named(str(p["loc"][0])) for p in error.errors() if p["type"] == "missing"]
        if missing:
            complaints.append(f"missing: {', '.join(missing)}")
        raise UserError("; ".join(complaints)) from error


def _complaint(
    config_class: type[Config], problem: Mapping[str, Any], named: Callable[[str], str]
) -> str:
    first, *rest = map(str, problem["loc"]) if problem["loc"] else ("",)
    name = ".".join([named(first), *rest]) if first else ""
    given = f"{problem['input']!r:.{_MOST_SHOWN}}"
    if problem["type"] == "value_error":  # ours, and says all
        said = str(problem["ctx"]["error"])
    elif problem["type"] == "extra_forbidden":
        said = f"no such setting{did_you_mean(first, config_class.model_fields)}"
    elif problem["type"] == "literal_error":
        choices = [word.strip("'") for word in re.split(", | or ", problem["ctx"]["expected"])]
        hint = did_you_mean(str(problem["input"]), choices)
        said = f"{given} is none of {', '.join(choices)}{hint}"
    else:
        said = f"{problem['msg']} (got {given})"
    return f"{name}: {said}" if name else said


def settings_for(
    verb: str, document: Mapping[str, Any], origin: str, algorithm: str | None = None
) -> dict[str, Any]:
    """What a config document says for one verb: its own table over the shared top level.

    For `train` the table of the algorithm, such as `[grpo]`, lies over both, and a shared setting
    that other verbs know too, such as `beta1`, is left out where the algorithm does not read it.

    Args:
        verb: A name in `VERBS`.
        document: A parsed config file.
        origin: Where it came from, for messages.
        algorithm: What `train` trains by, where it is not the document's.

    Raises:
        UserError: A top-level name belongs to no verb.
    """
    shared = {k: v for k, v in document.items() if not isinstance(v, dict)}
    known = {name for key, each in VERBS.items() if key != "plan" for name in each.model_fields}
    tables = document.keys() - shared.keys()
    strange = tables - TABLES.keys()
    if strange:  # An installed package's algorithm has its table, too.
        strange -= set(plugin_names(ALGORITHM_PLUGINS))
    if unknown := sorted((shared.keys() - known) | strange):
        hints = [did_you_mean(n, TABLES if n in tables else known) for n in unknown]
        raise UserError(f"{origin}: no such setting: {', '.join(unknown)}{''.join(hints)}")
    fields = VERBS[verb].model_fields
    own = document.get(verb, {})
    machines = resources_of(document, origin).model_dump(exclude_unset=True)
    settings = {k: v for k, v in (shared | machines).items() if k in fields}
    if verb != "train":
        return settings | own
    chosen = algorithm or (settings | own).get("algorithm", fields["algorithm"].default)
    others = {name for key, each in VERBS.items() if key != verb for name in each.model_fields}
    is_own = chosen not in ALGORITHM_NAMES  # then nobody knows yet what it reads
    settings = {
        k: v for k, v in settings.items() if is_own or k not in others or chosen in readers(k)
    }
    return settings | own | document.get(str(chosen), {})


def resources_of(document: Mapping[str, Any], origin: str) -> ResourcesConfig:
    """The machines that a document's table `[resources]` says it is for.

    Those of its settings that a verb knows too, such as `engine`, hold for that verb.

    Raises:
        UserError: A setting is unknown or out of bounds.
    """
    table = document.get("resources", {})
    if not isinstance(table, Mapping):
        raise UserError(f"{origin}: resources is a table: write [resources]")
    return build(ResourcesConfig, table, lambda name: f"{origin}: [resources] {name}")


def refuse_unasked(
    settings: Mapping[str, Any],
    asked: Mapping[str, Any],
    origin: str,
    permission: str = "trust_reward",
) -> None:
    """Refuses what a file, which may come from anyone, may not ask for: running code, overwriting.

    Args:
        settings: The file's: of a verb, or a whole recipe with its tables.
        asked: What the user gave beside the file.
        origin: The file, for messages.
        permission: The setting by which the user names a function that may run.
    """
    permitted = asked.get(permission)
    for name, value in settings.items():
        if isinstance(value, Mapping):
            refuse_unasked(value, asked, origin, permission)
        elif name in ("reward", "trust_reward") and is_function(value) and permitted != value:
            flag = permission.replace("_", "-")
            raise UserError(
                f"{origin}: asks to run the function {value!r:.200} to judge answers: if it is "
                f"yours, give --{flag} {value!s:.200}; else do not use the file"
            )
        elif name == "overwrite" and value and not asked.get("overwrite"):
            raise UserError(f"{origin}: asks to overwrite files: leave it out, or give --overwrite")


def read_document(path: Path) -> dict[str, Any]:
    """Parses a TOML or JSON config file, of this version or an earlier one."""
    if path.suffix not in (".toml", ".json"):
        raise UserError(f"{path}: a config file ends in .toml or .json")
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # Both parsers' errors are ValueErrors.
        raise UserError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: a config file holds settings by name")
    return upgrade(plain(document), str(path))


def upgrade(document: Mapping[str, Any], origin: str, verb: str | None = None) -> dict[str, Any]:
    """A document as this version writes it. One of this version stays as it is.

    In version 0.1.0 `reward` said to `data` what judges, and to all other verbs which function may
    run; that is `trust_reward` now. Its settings in `_REMOVED` are gone.

    Args:
        document: A config file or a table of one, parsed.
        origin: Where it came from, for messages.
        verb: The verb whose settings alone it holds; None where it may serve all.

    Raises:
        UserError: It uses a setting that is gone.
    """
    upgraded: dict[str, Any] = {}
    for name, value in document.items():
        if name == ENVIRONMENT:
            continue  # It says where a run was made, and asks for nothing.
        if isinstance(value, Mapping):
            upgraded[name] = upgrade(value, origin, verb or TABLES.get(name))
        elif name in _REMOVED:
            if value != _REMOVED[name]:
                raise UserError(
                    f"{origin}: {name} was measured, did not help and was removed "
                    "(docs/experiments.md, Stability): leave it out"
                )
        elif name == "reward" and verb not in (None, "data"):
            upgraded.setdefault("trust_reward", value)
        else:
            upgraded[name] = value
    if verb is None and is_function(document.get("reward")):
        upgraded.setdefault("trust_reward", document["reward"])
    return upgraded


def permit_recipe(
    document: Mapping[str, Any], path: Path | str, trust_reward: str | None
) -> dict[str, Any]:
    """A recipe whose files all go below `--out`, and whose code runs only if it is named.

    Args:
        document: The recipe, parsed.
        path: Its file, for messages.
        trust_reward: The function that the user named, which then may run in every stage.

    Raises:
        UserError: It names a place to write to, or asks to run a function that the user did not
            name.
    """
    refuse_unasked(document, {"trust_reward": trust_reward}, str(path))
    for name, table in {"": document, **document}.items():
        if isinstance(table, Mapping) and "out" in table:
            where = f"[{name}] out" if name else "out"
            raise UserError(f"{path}: {where}: all files of a recipe go below --out: leave it out")
    return {**document} | ({"trust_reward": trust_reward} if trust_reward else {})


def measures_kl(config: EvaluateConfig, reference: str) -> dict[str, Any]:
    """The setting by which an evaluation measures the KL to a reference, where it can."""
    return {"reference": reference} if config.samples > 0 and config.top_p == 1 else {}


def plain(value: Any) -> Any:
    """What JSON can hold: TOML also has infinity, and dates."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by the name of a shipped one."""
    if (path := Path(name)).is_file():
        return path
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    if path.suffix or len(path.parts) > 1:  # It was meant for a path.
        raise UserError(f"{name}: no such file; shipped recipes: {', '.join(shipped)}")
    hint = did_you_mean(name, shipped)
    raise UserError(f"{name}: no such recipe file; shipped recipes: {', '.join(shipped)}{hint}")


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("astarpo"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
