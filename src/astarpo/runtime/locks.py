"""One writer for a folder: two processes on one `--out` would undo each other's work.

The lock is the operating system's, on a file `.lock` that names its holder, so that it ends with
the process however that ends, `kill -9` included; there is nothing to clean up.
"""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from astarpo.runtime.files import disk_errors
from astarpo.types import UserError

LOCK_NAME = ".lock"

logger = logging.getLogger("astarpo")


@contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Makes this process the only one to write in a folder, which is made if it is missing.

    A folder that was made here and is still empty at the end is removed again.

    Raises:
        UserError: Another process holds it, or the disk refuses.
    """
    with disk_errors(path):
        is_new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        file = path / LOCK_NAME
        descriptor = _acquire(file)
    try:
        with disk_errors(path):
            _name_holder(descriptor, path)
        yield
    finally:
        # The lock ends with the descriptor; a disk that has become read-only keeps the file.
        with suppress(OSError):
            if _is_at(descriptor, file):
                file.unlink()
        os.close(descriptor)
        if is_new:
            with suppress(OSError):  # It holds something.
                path.rmdir()


def _acquire(file: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _named(_read_holder(descriptor))
            os.close(descriptor)
            raise UserError(
                f"{file.parent}: {holder} is writing here; wait for it or end it (if that machine "
                f"is gone, delete {file})"
            ) from error
        except OSError as error:
            logger.warning(
                f"{file.parent}: this file system has no locks ({error.strerror}): see to it that "
                "no other process writes here"
            )
        if _is_at(descriptor, file):
            return descriptor
        os.close(descriptor)  # Its last holder has just removed it.


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def _name_holder(descriptor: int, path: Path) -> None:
    host = socket.gethostname()
    left = _read_holder(descriptor)
    if left and left["host"] != host:
        logger.warning(
            f"{path}: {_named(left)} was killed while it wrote here; going on in its place"
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"host": host, "pid": os.getpid()}).encode(), 0)


def _read_holder(descriptor: int) -> dict[str, Any] | None:
    """Who wrote its name last, None where nobody has."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return None
    return holder if isinstance(holder, dict) and {"host", "pid"} <= holder.keys() else None


def _named(holder: dict[str, Any] | None) -> str:
    return f"process {holder['pid']} on {holder['host']}" if holder else "another process"
