"""The page of all settings, made of their declarations in `astarpo.config`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from astarpo.config import VERBS
from astarpo.config.setting import ALGORITHM_NAMES, Group, Setting, setting_of

Row = tuple[str, FieldInfo, Setting, list[str]]


def settings_page() -> str:
    """Every setting of every verb, under the headings of `--help`."""
    lines = [
        "# Settings by theme",
        "",
        "Every setting of every verb, made of the declarations that the command line and config "
        "files go by. A setting is a flag (`--max-new-tokens 512`), a key of a recipe or a config "
        "file (`max_new_tokens = 512`) and a keyword in Python (`max_new_tokens=512`).",
        "",
        "- **on resume** says what `astarpo train --resume` may be given anew: *free* settings "
        "change how far or how fast, not what is computed; *steering* ones help a run that goes "
        "wrong, are allowed and recorded; *length* is free at a constant learning rate and "
        "steering otherwise; all others are fixed.",
        "- A setting that only some algorithms read is refused if the chosen one does not.",
        "",
    ]
    for group in Group:
        rows = list(_rows(group))
        if rows:
            lines += [f"## {group[0].upper()}{group[1:]}", "", *table(rows), ""]
    return "\n".join(lines)


def algorithm_table(name: str) -> str:
    """The settings that an algorithm reads and not all others do."""
    rows = []
    for key, field in VERBS["train"].model_fields.items():
        setting = setting_of(field)
        if name in setting.readers and setting.readers != ALGORITHM_NAMES:
            rows.append((key, field, setting, ["train"]))
    return "\n".join(table(rows))


def _rows(group: Group) -> Iterator[Row]:
    """The settings of a group; what verbs declare alike is one row."""
    found: dict[tuple[str, str, str, str], Row] = {}
    for verb, config_class in VERBS.items():
        for name, field in config_class.model_fields.items():
            setting = setting_of(field)
            if setting.group == group:
                alike = (name, str(field.description), default(field), values(field))
                found.setdefault(alike, (name, field, setting, []))[3].append(verb)
    yield from sorted(found.values(), key=lambda row: row[0])


def table(rows: list[Row]) -> list[str]:
    """Markdown of some settings."""
    lines = ["| setting | meaning | default | values | verbs | on resume |", "|-|-|-|-|-|-|"]
    for name, field, setting, verbs in rows:
        read = "" if setting.readers == ALGORITHM_NAMES else f" ({', '.join(setting.readers)})"
        resume = setting.on_resume if "train" in verbs and setting.on_resume != "fixed" else ""
        text = " ".join(str(field.description).split()).replace("|", "\\|")
        cells = [f"`{name}`", text, default(field), values(field), ", ".join(verbs) + read, resume]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def default(field: FieldInfo) -> str:
    """A setting's default as a recipe would write it."""
    if field.is_required():
        return "required"
    if field.default is None:
        return ""
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return f"`{field.default}`"


def values(field: FieldInfo) -> str:
    """What values a setting may have: its choices, or its type and bounds."""
    kinds = (field.annotation, *get_args(field.annotation))
    for kind in kinds:
        if get_origin(kind) is Literal:
            return ", ".join(f"`{choice}`" for choice in get_args(kind))
    names = {int: "whole number", float: "number", bool: "on or off", Path: "path", str: "text"}
    words = next((names[kind] for kind in kinds if kind in names), "")
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [
        f"{sign} {getattr(bound, name):g}"
        for bound in field.metadata
        if isinstance(bound, annotated_types.BaseMetadata)
        for name, sign in signs.items()
        if hasattr(bound, name)
    ]
    return " ".join([words, " and ".join(bounds)]).strip()
