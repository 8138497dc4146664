"""The command line: each verb calls the function of its name. No other file knows argparse.

Flags are made from the fields of a verb's config, and grouped as they are declared (see
`config/setting.py`). Pydantic converts and checks their values, so the command line and a config
file obey the same rules. Torch is imported once a verb runs, not before.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

import astarpo
from astarpo.config import VERBS, Config
from astarpo.config.documents import build, read_document, refuse_unasked, settings_for
from astarpo.config.setting import ALGORITHM_NAMES, Group, Setting, setting_of
from astarpo.runtime.log import LOGGER, LogHandler
from astarpo.runtime.stopping import STOPPED_STATUS
from astarpo.types import TrainingStopped, UserError
from astarpo.verbs import verb_home

USER_ERROR, STOPPED, INTERRUPTED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: Words of the command line; None for this process's.

    Returns:
        Exit status: 0 when done, 1 if training went wrong, 2 for a mistake of the user's, 3 if a
        signal stopped the verb and its state was saved.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _show_log()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(astarpo.__version__)
        return 0
    try:
        config, dry = parse(arguments)
        return _run(arguments[0], config, dry=dry)
    except UserError as error:
        return _complain(error, USER_ERROR)
    except TrainingStopped as error:
        return _complain(error, STOPPED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)


def parse(arguments: Sequence[str]) -> tuple[Config, bool]:
    """Reads a command line: the file of `--config` first, then flags, which override it.

    Returns:
        The verb's config, and whether `--dry-run` was given.

    Raises:
        UserError: The verb, a flag or a value is wrong, or something needed is missing.
    """
    verb = arguments[0]
    if verb not in VERBS:
        raise UserError(f"{verb}: no such verb; the verbs are {', '.join(VERBS)}")
    config_class = VERBS[verb]
    flags = vars(_parser(verb, config_class).parse_args(arguments[1:]))
    path, dry = flags.pop("config", None), flags.pop("dry_run", False)
    settings = {}
    if path:
        settings = settings_for(verb, read_document(Path(path)), path, flags.get("algorithm"))
        permission = "reward" if "reward" in config_class.model_fields else "trust_reward"
        refuse_unasked(settings, flags, path, permission)
    if {"steps", "epochs"} & flags.keys():  # The flag is instead of the file's other one.
        settings = {k: v for k, v in settings.items() if k not in ("steps", "epochs")}
    return build(config_class, settings | flags), dry


def _show_log() -> None:
    """Sends the log of this package, and of no other, to standard error."""
    if not LOGGER.handlers:
        LOGGER.addHandler(LogHandler())
    LOGGER.setLevel(logging.INFO)


def _run(verb: str, config: Config, *, dry: bool) -> int:
    home = verb_home(verb)
    function = getattr(home, verb.replace("-", "_"))
    if dry:
        # Every verb has a `preview` beside it, which reads the same `prepare` as the verb itself.
        details = home.preview(config)
        print(f"astarpo {verb} would run with", config.model_dump_json(indent=2), sep="\n")
        print(*details, sep="\n")
        return 0
    result = function(config)
    if isinstance(result, str):
        print(result)
    stopped = isinstance(result, dict) and result.get("completed") is False
    return STOPPED_STATUS if stopped else 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def _parser(verb: str, config_class: type[Config]) -> argparse.ArgumentParser:
    fields = dict(sorted(config_class.model_fields.items(), key=lambda item: _place(item[1])))
    parser = _Parser(
        prog=f"astarpo {verb}",
        usage=_usage(verb, fields),
        description=config_class.__doc__,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    general = parser.add_argument_group("general")
    general.add_argument("-h", "--help", action="help", help="Show this text and exit.")
    if config_class.takes_file:
        general.add_argument(
            "--config", metavar="FILE", help="TOML or JSON file with settings; flags override it."
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
    return parser


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
    choices = _choices(field.annotation)
    if field.annotation is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif choices and str in get_args(field.annotation):  # installed packages may add others
        options["metavar"] = f"{{{','.join(choices)}}}"
    elif choices:
        options["choices"] = choices
    else:
        options["metavar"] = _metavar(field.annotation)
    if setting_of(field).positional:
        options["metavar"] = name.upper()
        many = get_origin(field.annotation) is list
        group.add_argument(name, nargs="*" if many else "?", **options)
    else:
        group.add_argument(f"--{name.replace('_', '-')}", **options)


def _default(field: FieldInfo) -> str:
    """The default as a sentence after the help; empty where the help itself says it."""
    if field.is_required():
        return " Required."
    if field.default is None:
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
    return " ".join(["astarpo", verb, *shown, "[flags]"])


def _choices(annotation: Any) -> list[str] | None:
    kinds = (annotation, *get_args(annotation))  # `Literal[...] | None` has it one level down
    literal = next((kind for kind in kinds if get_origin(kind) is Literal), None)
    return [*get_args(literal)] if literal else None


def _metavar(annotation: Any) -> str:
    kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
    return {int: "N", float: "X", Path: "PATH"}.get(kinds[0], "TEXT")


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {cls.__doc__}" for verb, cls in VERBS.items()]
    return "\n".join(
        [
            "A*-PO: reinforcement learning for reasoning with one generation per prompt.",
            "",
            "usage: astarpo VERB [--config FILE] [flags]      astarpo VERB --help",
            "",
            *lines,
            "",
            "exit status: 0 done, 1 training went wrong, 2 a mistake in what was asked for,",
            "             3 stopped by SIGTERM or Ctrl-C with its state saved: the same command",
            "             continues it (for train: with --resume)",
        ]
    )


def _complain(error: object, status: int) -> int:
    print(f"astarpo: {' '.join(str(error).split())}", file=sys.stderr)
    return status
