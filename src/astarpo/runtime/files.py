"""Artefacts are written whole or not at all: a temporary file, fsync, rename.

Errors of the disk become one line for the user here, and nowhere else. A temporary file has a name
that nobody can foresee, so that nobody can put a link in its place beforehand. It is locked while
its writer lives: so what a killed process left behind can be told from what another process is
writing, and is removed.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from astarpo.runtime.remote import is_remote, store_errors
from astarpo.types import UserError

TEMPORARY_PREFIX = ".unfinished-"

_ADVICE = {
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
    errno.EROFS: "give a path that can be written",
    errno.EACCES: "give a path that you may use",
    errno.EPERM: "give a path that you may use",
    errno.ENOTDIR: "a part of this path is a file",
    errno.EEXIST: "a part of this path is a file",
    errno.EIO: "the disk fails",
}


class DamagedFileError(UserError):
    """A file whose contents are not what was once written."""


@contextmanager
def disk_errors(path: Path, doing: str = "write") -> Iterator[None]:
    """Turns an error of the disk into one line for the user.

    Args:
        path: The file or folder that the user knows.
        doing: `write` or `read`.

    Raises:
        UserError: In place of an error of the disk inside the block.
    """
    try:
        with store_errors(path, doing):
            yield
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        advice = f"; {_ADVICE[number]}" if number in _ADVICE else ""
        raise UserError(f"cannot {doing} {path}: {os.strerror(number)}{advice}") from error


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a temporary path beside `path`, then moves the result into place.

    A kill at any moment leaves either the old file or the new one. Folders that are missing are
    made. Where `path` is a link, what it points to is replaced. On a store it is one put.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder, disk_errors(path):
            write(Path(folder) / path.name)
            path.fs.put_file(f"{folder}/{path.name}", path.path)
        return
    with _replacement(path, is_folder=False) as (temporary, place):
        write(temporary)
        _fsync(temporary)
        os.replace(temporary, place)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented, atomically."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with a digest of its contents, so that damage does not pass unseen."""
    write_json(path, {**value, "digest": _json_digest(value)})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Reads what `write_sealed_json` wrote, without its digest; see `unseal`."""
    return unseal(path, read_json_object(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises DamagedFileError where the file holds none."""
    with disk_errors(path, "read"):
        data = path.read_bytes()
    try:
        value = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise DamagedFileError(f"{path}: damaged: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{path}: damaged: not a JSON object")
    return value


def unseal(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a sealed object, once its digest is known to be right.

    Args:
        path: Its file, for messages.
        value: The object with its digest.

    Raises:
        DamagedFileError: The digest is wrong or missing.
    """
    contents = {name: part for name, part in value.items() if name != "digest"}
    if value.get("digest") != _json_digest(contents):
        raise DamagedFileError(f"{path}: damaged: its contents do not match its digest")
    return contents


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, as hexadecimal digits."""
    with disk_errors(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=32)).hexdigest()


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that replaces `path` when the block ends without an error."""
    with _replacement(path, is_folder=True) as (temporary, place):
        yield temporary
        for file in sorted(temporary.rglob("*")):
            _fsync(file)
        _fsync(temporary)
        with _moved_away(place):
            os.replace(temporary, place)
    # Once more, since another process may have been killed while this folder was being written.
    remove_leftovers(place.parent)


def remove_directory(path: Path) -> None:
    """Removes a folder, if there is one; a kill never leaves half of it in its place."""
    with disk_errors(path), _moved_away(path):
        pass


def move(path: Path, name: str) -> None:
    """Gives a file another name in its folder."""
    if is_remote(path):
        path.fs.mv(path.path, path.with_name(name).path)
    else:
        path.replace(path.with_name(name))


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files and folders that killed processes left in a folder."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # Locked, so that another is writing it; or a link, so not ours.
            descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(leftover)
            finally:
                os.close(descriptor)


# A folder may hold very many files, and is written to very often.
_remove_leftovers_once = cache(remove_leftovers)


def _error_number(error: Exception) -> int | None:
    """The `errno` of an error of the disk; None for any other error."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))  # so safetensors words it
    return int(found[1]) if found else None


@contextmanager
def _replacement(path: Path, *, is_folder: bool) -> Iterator[tuple[Path, Path]]:
    """Makes what is to replace `path`, locked during the block and removed if left over.

    Yields:
        The temporary file or folder, and the place that the block moves it to: where `path` is a
        link, what it points to.
    """
    with disk_errors(path):
        place = path.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(place.parent)
        temporary, descriptor = _make_temporary(place, is_folder=is_folder)
        try:
            yield temporary, place
        finally:
            _remove(temporary)
            os.close(descriptor)
        _fsync(place.parent)


def _make_temporary(path: Path, *, is_folder: bool) -> tuple[Path, int]:
    while True:
        temporary = _temporary_name(path)
        if is_folder:
            temporary.mkdir()
        else:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        with suppress(FileNotFoundError):
            descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW)
            with suppress(OSError):  # Some file systems have no locks; nothing is cleaned up there.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if temporary.exists():
                return temporary, descriptor
            os.close(descriptor)  # Another process took it for a leftover before it was locked.


def _temporary_name(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{path.name}")


@contextmanager
def _moved_away(path: Path) -> Iterator[None]:
    """Moves a folder away for a block; removes it if the block succeeds, else puts it back."""
    if not os.path.lexists(path):
        yield
        return
    doomed = _temporary_name(path)
    os.replace(path, doomed)
    try:
        yield
    except BaseException:
        os.replace(doomed, path)
        raise
    _remove(doomed)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _json_digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
