"""Changes to a recipe from the command line: `--set train.lr=2e-6`."""

import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from astarpo.config import VERBS
from astarpo.config.documents import TABLES, permit_recipe, plain, read_document
from astarpo.runtime.words import did_you_mean
from astarpo.types import UserError

_OF_NAMES = ("variants", "ood")
"""Tables that hold others, each with a name: `[variants.NAME]`."""


def read_recipe_file(
    path: Path, changes: Sequence[str], trust_reward: str | None
) -> dict[str, Any]:
    """Parses a recipe and changes it; raises what `apply_changes` and `permit_recipe` raise."""
    return permit_recipe(apply_changes(read_document(path), changes), path, trust_reward)


def apply_changes(document: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A recipe with some of its settings changed.

    Args:
        document: The recipe, parsed.
        changes: Each `TABLE.SETTING=VALUE`, or `SETTING=VALUE` for what all its verbs share; of a
            table that is in the recipe under a name also `variants.NAME.SETTING=VALUE`. A value is
            read as TOML has it; what is no TOML is text.

    Raises:
        UserError: A change has another form, its table or setting is unknown, or it says where to
            write, which `--out` does.

    Example:
        >>> apply_changes({"train": {"lr": 1e-6}}, ["train.lr=2e-6", "beta1=inf"])
        {'train': {'lr': 2e-06}, 'beta1': 'inf'}
    """
    changed = deepcopy(dict(document))
    for change in changes:
        path, equals, text = change.partition("=")
        table, _, name = path.strip().rpartition(".")
        if not equals or not name:
            raise UserError(f"--set {change}: write TABLE.SETTING=VALUE, such as train.lr=2e-6")
        group, _, named = table.partition(".")
        if group in _OF_NAMES:
            if not named:
                raise UserError(f"--set {change}: write {table}.NAME.{name}=VALUE")
            _require_known(change, group, name)
            place = _named(changed, change, group, named)
        else:
            _require_known(change, table, name)
            place = changed.setdefault(table, {}) if table else changed
        place[name] = _value(text.strip())
    return changed


def _named(document: Mapping[str, Any], change: str, group: str, name: str) -> dict[str, Any]:
    """One of the tables with names; a change makes none, so that a slip of the pen is noticed."""
    tables = document.get(group, {})
    if name not in tables:
        raise UserError(
            f"--set {change}: the recipe has no [{group}.{name}]{did_you_mean(name, tables)}"
        )
    return tables[name]


def _require_known(change: str, table: str, name: str) -> None:
    if table and table not in TABLES:
        hint = did_you_mean(table, TABLES)
        raise UserError(f"--set {change}: no such table: {table}{hint}")
    verbs = [TABLES[table]] if table else list(VERBS)
    known = {setting for verb in verbs for setting in VERBS[verb].model_fields}
    if name not in known:
        hint = did_you_mean(name, known)
        elsewhere = sorted({t for t, v in TABLES.items() if name in VERBS[v].model_fields})
        if table and elsewhere:
            hint = f", but {', '.join(elsewhere)} {'have' if len(elsewhere) > 1 else 'has'} it"
        where = f"{table} has" if table else "there is"
        raise UserError(f"--set {change}: {where} no setting {name}{hint}")
    if name == "out":
        raise UserError(f"--set {change}: all files of a recipe go below --out: leave it out")


def _value(text: str) -> Any:
    try:
        return plain(tomllib.loads(f"value = {text}"))["value"]
    except tomllib.TOMLDecodeError:
        return text
