"""Where a verb may write: checked at its start, before any work.

No input of the call is overwritten, and no other file that exists unless the user asks for it with
`--overwrite`. Where an earlier call of the same verb left its folder unfinished, the verb goes on.
"""

import os
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path

from astarpo.runtime.files import TEMPORARY_PREFIX, disk_errors
from astarpo.runtime.remote import as_path, is_remote, is_url
from astarpo.types import UserError

_ELSEWHERE = "give another --out"


def check_file(
    out: Path,
    inputs: Iterable[Path | str | None] = (),
    *,
    overwrite: bool = False,
    suffix: str | None = None,
) -> None:
    """Checks that a file can be written, and that nothing is lost by it.

    Args:
        out: The file.
        inputs: What the call reads: paths, or names that are no paths; None for what is not given.
            What is in a folder belongs to it.
        overwrite: Whether a file that is there may be replaced.
        suffix: What its name has to end in, where other files are named after it.

    Raises:
        UserError: It cannot be made, it is there already, or it is one of the inputs.
    """
    if suffix is not None and out.suffix != suffix:
        raise UserError(f"{out}: --out is a file that ends in {suffix}")
    _check_place(out)
    if out.is_dir():
        raise UserError(f"{out}: is a folder, and a file is to be written; {_ELSEWHERE}")
    _refuse_input(out, inputs)
    if out.exists() and not out.is_file():
        raise UserError(f"{out}: is no ordinary file; {_ELSEWHERE}")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; {_ELSEWHERE}, or replace it with --overwrite")


def check_folder(
    out: Path,
    inputs: Iterable[Path | str | None] = (),
    *,
    kind: str = "",
    marks: tuple[str, ...] = (),
) -> None:
    """Checks that a folder can be made, or that it is one that this verb can go on with.

    An empty folder will do where it is filled file by file, but not where it is written as a whole.

    Args:
        out: The folder.
        inputs: What the call reads: paths, or names that are no paths; None for what is not given.
        kind: What the verb makes of the folder, for messages: `a value table`.
        marks: Patterns of files by which an earlier call's folder is known; none where the folder
            is written as a whole, so that there is nothing to go on with.

    Raises:
        UserError: It cannot be made, holds something else, or is one of the inputs.
    """
    _check_place(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, and a folder is to be made; {_ELSEWHERE}")
    _refuse_input(out, inputs)
    if not marks and out.exists():
        raise UserError(f"{out}: exists already; {_ELSEWHERE}")
    # Hidden files are what a killed call leaves, and what file managers and git put everywhere.
    ours = any(any(out.glob(mark)) for mark in marks)
    if not ours and any(out.glob("[!.]*")):
        raise UserError(f"{out}: exists and is not {kind}; {_ELSEWHERE}")


def _check_place(out: Path) -> None:
    """Checks that something can be made at a path, by making a file that has no name there.

    Asking for permissions is not enough: a read-only or special file system grants them.
    """
    if is_remote(out):
        with disk_errors(out):
            beside = out.parent if out.name else out  # A whole bucket has no name.
            probe = beside / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            probe.write_bytes(b"")
            probe.unlink()
        return
    try:
        if out.is_symlink() and not out.exists():
            raise UserError(f"{out}: is a link to nothing; {_ELSEWHERE}")
        out.exists()  # Raises where the name is too long, say.
        place = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
        place = out if out.is_dir() else place
        if not place.is_dir():
            raise UserError(f"{out}: cannot be written: {place} is not a folder; {_ELSEWHERE}")
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{out}: cannot be written ({reason}); {_ELSEWHERE}") from error


def _refuse_input(out: Path, inputs: Iterable[Path | str | None]) -> None:
    for given in inputs:
        if given is None:
            continue
        path = as_path(given) if is_url(str(given)) else Path(given).expanduser()
        if is_remote(path) or is_remote(out):
            if str(path) == str(out):
                raise UserError(f"{out}: is an input of this call; {_ELSEWHERE}")
            continue
        if path.exists() and os.path.realpath(path) == os.path.realpath(out):
            raise UserError(f"{out}: is an input of this call; {_ELSEWHERE}")
        if out.is_file() and path.exists() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{out}: is part of {path}, an input of this call; {_ELSEWHERE}")
