"""Completion of verbs, flags and their values in a shell: a script that shtab writes."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from astarpo.cli.flags import choices_of, fill_parser
from astarpo.config import VERBS
from astarpo.config.documents import shipped_recipes
from astarpo.runtime.words import did_you_mean
from astarpo.types import UserError

SHELLS = ("bash", "zsh", "tcsh")

_RECIPES = "_astarpo_recipes"


def completion(words: Sequence[str]) -> str:
    """The script for the shell that is named, to be put where that shell looks for such.

    Example:
        astarpo --print-completion bash > ~/.local/share/bash-completion/completions/astarpo

    Raises:
        UserError: Not one shell is named, or it is another one.
    """
    import shtab

    if len(words) != 1 or words[0] not in SHELLS:
        hint = did_you_mean(words[0], SHELLS) if words else ""
        raise UserError(f"--print-completion takes one of {', '.join(SHELLS)}{hint}")
    root = argparse.ArgumentParser("astarpo", add_help=False, allow_abbrev=False)
    root.add_argument("--help", action="store_true")
    root.add_argument("--version", action="store_true")
    verbs = root.add_subparsers()
    for verb, config_class in VERBS.items():
        parser = verbs.add_parser(
            verb, help=config_class.__doc__, add_help=False, allow_abbrev=False
        )
        fill_parser(parser, verb)
        _add_values(parser, verb)
    return shtab.complete(root, words[0], preamble=_recipes_in_bash() if words[0] == "bash" else "")


def _recipes_in_bash() -> str:
    """A function of bash that completes the name of a recipe, or a path."""
    names = " ".join(shipped_recipes())
    return f'{_RECIPES}() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}'


def _add_values(parser: argparse.ArgumentParser, verb: str) -> None:
    """Says what may stand in each flag's place: one of its values, a recipe's name, or a path."""
    import shtab

    fields = VERBS[verb].model_fields
    for action in parser._actions:
        field = fields.get(action.dest)
        if action.dest in ("recipe", "config") or (action.dest == "name" and verb == "recipes"):
            action.complete = shtab.FILE | {"bash": _RECIPES}  # type: ignore[attr-defined]
        elif field is None:
            continue
        elif choices := choices_of(field.annotation):
            action.choices = choices
        elif Path in (field.annotation, *get_args(field.annotation)) or action.dest == "model":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
