"""Flags of a verb, made from the fields of its config and grouped as they are declared there.

What argparse would refuse in words of its own is left to the config: which values a setting takes,
and which settings are needed, is said in one way for flags, files and Python.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from astarpo.config import VERBS
from astarpo.config.setting import ALGORITHM_NAMES, Group, Setting, setting_of
from astarpo.runtime.words import did_you_mean
from astarpo.types import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are `UserError`s."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print."""
        raise UserError(f"{message} (see {self.prog} --help)")


def parse_flags(verb: str, words: list[str]) -> dict[str, Any]:
    """The flags of a command line after its verb, by the names of the settings.

    Raises:
        UserError: A word is no flag of this verb, or a flag lacks its value.
    """
    given, unknown = build_parser(verb).parse_known_args(words)
    if unknown:
        raise UserError(_refusal(verb, unknown))
    return vars(given)


def flag(name: str) -> str:
    """The flag of a setting: `--max-new-tokens` for `max_new_tokens`."""
    return f"--{name.replace('_', '-')}"


def shown_name(verb: str, name: str) -> str:
    """How a user gives a setting on the command line: by its flag, or by position."""
    field = VERBS[verb].model_fields.get(name)
    return name.upper() if field is not None and setting_of(field).positional else flag(name)


def build_parser(verb: str) -> Parser:
    """The parser of one verb's flags."""
    parser = Parser(
        prog=f"astarpo {verb}",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    fill_parser(parser, verb)
    return parser


def fill_parser(parser: argparse.ArgumentParser, verb: str) -> None:
    """Gives a parser the flags of a verb."""
    config_class = VERBS[verb]
    fields = dict(sorted(config_class.model_fields.items(), key=lambda item: _place(item[1])))
    parser.usage, parser.description = _usage(verb, fields), config_class.__doc__
    general = parser.add_argument_group("general")
    general.add_argument("-h", "--help", action="help", help="Show this text and exit.")
    if config_class.takes_file:
        general.add_argument(
            "--config",
            metavar="FILE",
            help="TOML or JSON file with settings, or the name of a shipped recipe (astarpo "
            "recipes); flags override it.",
        )
    general.add_argument(
        "--dry-run", action="store_true", help="Check all inputs and say what would be done."
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, field in fields.items():
        heading = _heading(setting_of(field))
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        _add_setting(groups[heading], name, field)


def choices_of(annotation: Any) -> list[str] | None:
    """The values that a setting can have, where its type lists them."""
    kinds = (annotation, *get_args(annotation))  # `Literal[...] | None` has it one level down
    literal = next((kind for kind in kinds if get_origin(kind) is Literal), None)
    return [*get_args(literal)] if literal else None


def _refusal(verb: str, unknown: list[str]) -> str:
    """What is said of words that are none of a verb's flags."""
    flags = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    if not flags:
        return f"too many words: {' '.join(unknown)} (see astarpo {verb} --help)"
    fields = VERBS[verb].model_fields
    own = ["--help", "--dry-run", *map(flag, fields)] + ["--config"] * VERBS[verb].takes_file
    own += [flag(f"no_{name}") for name, field in fields.items() if field.annotation is bool]
    complaints = []
    for word in flags:
        hint = did_you_mean(word, own)
        elsewhere = [v for v, c in VERBS.items() if word in map(flag, c.model_fields)]
        if elsewhere:
            hint = f", but {', '.join(elsewhere)} {'have' if len(elsewhere) > 1 else 'has'} it"
        complaints.append(f"astarpo {verb} has no flag {word}{hint}")
    return f"{'; '.join(complaints)} (see astarpo {verb} --help)"


def _place(field: FieldInfo) -> tuple[bool, int, bool, bool]:
    """Where a setting comes in `--help`, and among the words that are taken by position."""
    setting = setting_of(field)
    group = 0 if setting.positional else list(Group).index(setting.group)
    read_by_all = setting.readers == ALGORITHM_NAMES
    return not setting.positional, group, not read_by_all, not field.is_required()


def _heading(setting: Setting) -> str:
    if setting.positional:
        return "arguments"
    if setting.readers != ALGORITHM_NAMES:
        return f"{setting.group}: read by {', '.join(setting.readers)}"
    return setting.group


def _add_setting(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    options: dict[str, Any] = {"help": f"{field.description}{_default(field)}".replace("%", "%%")}
    many = get_origin(field.annotation) in (list, tuple)
    if setting_of(field).positional:
        options["metavar"] = name.upper()
        group.add_argument(name, nargs="*" if many else "?", **options)
        return
    if field.annotation is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["metavar"] = _metavar(field.annotation)
        options |= {"action": "append"} if many else {}
    group.add_argument(flag(name), **options)


def _default(field: FieldInfo) -> str:
    """The default as a sentence after the help; empty where the help itself says it."""
    if field.is_required():
        return " Required."
    if field.default in (None, ()):
        return ""
    if isinstance(field.default, bool):
        return f" Default: {'on' if field.default else 'off'}."
    return f" Default: {field.default}."


def _usage(verb: str, fields: Mapping[str, FieldInfo]) -> str:
    shown = [
        name.upper() if field.is_required() else f"[{name.upper()}]"
        for name, field in fields.items()
        if setting_of(field).positional
    ]
    needed = [
        f"{flag(name)} {_metavar(field.annotation)}"
        for name, field in fields.items()
        if field.is_required() and not setting_of(field).positional
    ]
    return " ".join(["astarpo", verb, *shown, *needed, "[flags]"])


def _metavar(annotation: Any) -> str:
    if choices := choices_of(annotation):
        return f"{{{','.join(choices)}}}"
    kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
    return {int: "N", float: "X", Path: "PATH"}.get(kinds[0], "TEXT")
