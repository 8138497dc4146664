"""Changes to a recipe from the command line: `--set train.lr=2e-6`."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from astarpo.config import VERBS
from astarpo.config.documents import TABLES, plain
from astarpo.runtime.words import did_you_mean
from astarpo.types import UserError


def apply_changes(document: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A recipe with some of its settings changed.

    Args:
        document: The recipe, parsed.
        changes: Each `TABLE.SETTING=VALUE`, or `SETTING=VALUE` for what all its verbs share. A
            value is read as TOML has it; what is no TOML is text.

    Raises:
        UserError: A change has another form, its table or setting is unknown, or it says where to
            write, which `--out` does.

    Example:
        >>> apply_changes({"train": {"lr": 1e-6}}, ["train.lr=2e-6", "beta1=inf"])
        {'train': {'lr': 2e-06}, 'beta1': 'inf'}
    """
    changed = {k: dict(v) if isinstance(v, Mapping) else v for k, v in document.items()}
    for change in changes:
        path, equals, text = change.partition("=")
        table, _, name = path.strip().rpartition(".")
        if not equals or not name:
            raise UserError(f"--set {change}: write TABLE.SETTING=VALUE, such as train.lr=2e-6")
        _require_known(change, table, name)
        place = changed.setdefault(table, {}) if table else changed
        place[name] = _value(text.strip())
    return changed


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
