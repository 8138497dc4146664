"""The command line: each verb calls the function of its name. No other room knows argparse.

Flags are made from the fields of a verb's config (see `flags.py`). Pydantic converts and checks
their values, so the command line and a config file obey the same rules. Torch is imported once a
verb runs, not before.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial

import astarpo
from astarpo.cli.completion import SHELLS, completion
from astarpo.cli.endings import ending
from astarpo.cli.flags import parse_flags, shown_name
from astarpo.cli.ranks import Settle, refuse_ranks, run_as_rank
from astarpo.config import VERBS, Config
from astarpo.config.documents import (
    build,
    find_recipe,
    read_document,
    refuse_unasked,
    settings_for,
)
from astarpo.planning.records import Plan
from astarpo.runtime.launch import is_first_rank, read_launch
from astarpo.runtime.log import LOGGER, LogHandler, told_level
from astarpo.runtime.stopping import STOPPED_STATUS
from astarpo.runtime.words import did_you_mean, shown
from astarpo.types import TrainingStopped, UserError
from astarpo.verbs import verb_home

USER_ERROR, STOPPED, DOES_NOT_FIT, INTERRUPTED = 2, 1, 1, 130

_PURPOSES = {
    "begin here": ("demo", "recipes", "run", "plan"),
    "the stages of a recipe, one by one": ("data", "warm-start", "estimate", "train", "evaluate"),
    "look at what came of it": ("runs", "report", "chat"),
    "experiments": ("compare", "sweep"),
    "give and take": ("push", "export", "import-values"),
    "when something is wrong": ("env",),
}
"""Under which heading `--help` lists a verb."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: Words of the command line; None for this process's.

    Returns:
        Exit status: 0 when done, 1 if training went wrong or a plan does not fit, 2 for a mistake
        of the user's, 3 if a signal stopped the verb and its state was saved.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _show_log()
    try:
        if read_launch().size == 1:
            return _answer(arguments)
        refuse_ranks(arguments)
    except UserError as error:
        return _complain(error, USER_ERROR) if is_first_rank() else USER_ERROR
    return run_as_rank(partial(_answer, arguments))


def _answer(arguments: Sequence[str], settle: Settle = lambda _: True) -> int:
    """Does what the command line asks for; `settle` says of an error whether to tell it here."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(astarpo.__version__)
        return 0
    try:
        if arguments[0] == "--print-completion":
            print(completion(arguments[1:]))
            return 0
        config, dry = parse(arguments)
        return _run(arguments[0], config, dry=dry)
    except UserError as error:
        return _complain(error, USER_ERROR) if settle(error) else USER_ERROR
    except TrainingStopped as error:
        return _complain(error, STOPPED) if settle(error) else STOPPED
    except KeyboardInterrupt as error:
        return _complain("interrupted", INTERRUPTED) if settle(error) else INTERRUPTED


def parse(arguments: Sequence[str]) -> tuple[Config, bool]:
    """Reads a command line: the file of `--config` first, then flags, which override it.

    Returns:
        The verb's config, and whether `--dry-run` was given.

    Raises:
        UserError: The verb, a flag or a value is wrong, or something needed is missing.
    """
    verb = arguments[0]
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS)
        known = f"; the verbs are {', '.join(VERBS)}"
        raise UserError(f"{verb}: no such verb{hint or known} (see astarpo --help)")
    config_class = VERBS[verb]
    flags = parse_flags(verb, list(arguments[1:]))
    given, dry = flags.pop("config", None), flags.pop("dry_run", False)
    settings, path = {}, None
    if given:
        path = find_recipe(given)
        settings = settings_for(verb, read_document(path), given, flags.get("algorithm"))
        permission = "reward" if "reward" in config_class.model_fields else "trust_reward"
        refuse_unasked(settings, flags, given, permission)
    if {"steps", "epochs"} & flags.keys():  # The flag is instead of the file's other one.
        settings = {k: v for k, v in settings.items() if k not in ("steps", "epochs")}

    def named(name: str) -> str:
        of_file = name in settings and name not in flags
        return f"{given}: {name}" if of_file else shown_name(verb, name)

    return build(config_class, settings | flags, named), dry


def _show_log() -> None:
    """Sends the log of this package, and of no other, to standard error."""
    if not LOGGER.handlers:
        LOGGER.addHandler(LogHandler())
    LOGGER.setLevel(told_level())


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
    if isinstance(result, Plan):
        print(json.dumps(result.facts, indent=2) if config.json else result.text)
        if not result.fits:
            return DOES_NOT_FIT
    if isinstance(result, str):
        print(result)
    if isinstance(result, dict) and result.get("completed") is False:
        return STOPPED_STATUS
    sys.stdout.flush()  # What is told of the result comes after it, also where both are shown.
    for line in ending(verb, config) if is_first_rank() else ():
        print(line, file=sys.stderr)
    return 0


def _overview() -> str:
    width = max(map(len, VERBS))
    listed = {verb for verbs in _PURPOSES.values() for verb in verbs}
    purposes = _PURPOSES | {"more": tuple(verb for verb in VERBS if verb not in listed)}
    lines = []
    for purpose, verbs in purposes.items():
        known = [verb for verb in verbs if verb in VERBS]
        lines += ["", f"{purpose}:"] * bool(known)
        lines += [f"  {verb:<{width}}  {VERBS[verb].__doc__}" for verb in known]
    return "\n".join(
        [
            "A*-PO: reinforcement learning for reasoning with one generation per prompt.",
            "",
            "usage: astarpo VERB [flags]      astarpo VERB --help      astarpo --version",
            *lines,
            "",
            "Settings come from --config FILE or a recipe's name, and from flags over it;",
            "--dry-run checks all inputs and says what would be done.",
            f"Completion of words: astarpo --print-completion {{{','.join(SHELLS)}}}",
            "",
            "exit status: 0 done, 1 training went wrong, or a plan does not fit,",
            "             2 a mistake in what was asked for,",
            "             3 stopped by SIGTERM or Ctrl-C with its state saved: the same command",
            "             continues it (for train: with --resume)",
        ]
    )


def _complain(error: object, status: int) -> int:
    who = "" if is_first_rank() else f"rank {read_launch().rank}: "
    print(f"astarpo: {who}{shown(' '.join(str(error).split()))}", file=sys.stderr)
    return status
