"""One writer for a folder, by name: two processes on one `--out` would undo each other's work.

The lock is the operating system's, on a file `.lock` that names its holder as `{"host", "pid"}`. It
ends with the process however that ends, `kill -9` included, so there is nothing to clean up. The
file is removed when the work ends by itself: one that is there and not locked was left by a kill.

Where other machines do not see the lock, as on some network file systems, the file's time tells
them: its holder renews it while it works (`beat`).
"""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from astarpo.runtime.files import disk_errors
from astarpo.runtime.remote import is_remote
from astarpo.types import UserError

LOCK_NAME = ".lock"
_BRIEF_LOCK_NAME = ".lock-brief"

_SECONDS_BETWEEN_BEATS = 10.0
_SECONDS_BETWEEN_TRIES = 0.005

logger = logging.getLogger("astarpo")

_held: set[int] = set()
_last_beat_s = 0.0


class Holder(NamedTuple):
    """The process that a folder's lock file names.

    Attributes:
        name: `process 12 on node7`, as messages call it.
        is_alive: Whether it holds the lock; None where that cannot be seen from this machine.
        silent_s: Seconds since it last showed that it works.
    """

    name: str
    is_alive: bool | None
    silent_s: float


@contextmanager
def folder_lock(path: Path, *, wait: bool = False) -> Iterator[int]:
    """Makes this process the only one to write in a folder, which is made if it is missing.

    A folder that was made here and is still empty at the end is removed again.

    Args:
        path: The folder.
        wait: Whether to wait for another process that holds it, rather than refuse.

    Yields:
        The lock's file descriptor. A child process that is given it keeps the folder locked should
        this process be killed.

    Raises:
        UserError: Another process holds it, or the disk refuses.
    """
    if is_remote(path):  # No locks there: see `runtime/remote.py` for what protects two writers.
        yield -1
        return
    with disk_errors(path):
        is_new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        file = path / LOCK_NAME
        descriptor = _acquire(file, wait=wait)
    try:
        with disk_errors(path):
            _name_holder(descriptor, path)
        _held.add(descriptor)
        yield descriptor
    finally:
        _held.discard(descriptor)
        # The lock ends with the descriptor; a disk that has become read-only keeps the file.
        with suppress(OSError):
            if _is_at(descriptor, file):
                file.unlink()
        os.close(descriptor)
        if is_new:
            with suppress(OSError):  # It holds something.
                path.rmdir()


@contextmanager
def brief_lock(path: Path) -> Iterator[None]:
    """Lets one process at a time into a block that takes moments; the others wait, unannounced.

    It is not the lock of `folder_lock`: whoever holds that one may take this one too. On a file
    system whose locks other machines do not see, it excludes the processes of this machine alone.

    Args:
        path: A folder that is there.

    Raises:
        UserError: The disk refuses.
    """
    if is_remote(path):
        yield
        return
    file = path / _BRIEF_LOCK_NAME
    with disk_errors(path):
        descriptor = _acquire(file, wait=True, is_told=False)
    try:
        yield
    finally:
        with suppress(OSError):
            if _is_at(descriptor, file):
                file.unlink()
        os.close(descriptor)


def beat() -> None:
    """Renews the time of every lock file that this process holds, now and then."""
    global _last_beat_s
    now_s = time.monotonic()
    if now_s - _last_beat_s >= _SECONDS_BETWEEN_BEATS:
        _last_beat_s = now_s
        for descriptor in tuple(_held):
            with suppress(OSError):  # Work that the disk refuses says so itself.
                os.utime(descriptor)


def read_holder(path: Path) -> Holder | None:
    """The process that works in a folder, or was killed while it did; None where there is none."""
    if is_remote(path):
        return None
    try:
        descriptor = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        left = _read_name(descriptor)
        is_alive = False if left and left["host"] == socket.gethostname() else None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            is_alive = True
        except OSError:  # This file system has no locks.
            is_alive = None
        silent_s = max(0.0, time.time() - os.fstat(descriptor).st_mtime)
        return Holder(_named(left), is_alive, silent_s)
    finally:
        os.close(descriptor)


def _acquire(file: Path, *, wait: bool, is_told: bool = True) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            _lock(descriptor)
        except BlockingIOError as error:
            name = _named(_read_name(descriptor))
            if not wait:
                os.close(descriptor)
                raise UserError(
                    f"{file.parent}: {name} is writing here; wait for it or end it (if that "
                    f"machine is gone, delete {file})"
                ) from error
            if is_told:
                logger.warning(f"{file.parent}: {name} works here; waiting for it to end")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            tell = logger.warning if is_told else logger.debug
            tell(
                f"{file.parent}: this file system has no locks ({error.strerror}): see to it that "
                "no other process writes here"
            )
        if _is_at(descriptor, file):
            return descriptor
        os.close(descriptor)  # Its last holder has just removed it.


def _lock(descriptor: int) -> None:
    """Locks a file for writing; raises BlockingIOError where another process has done so."""
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Only `read_holder` shares a lock, for a moment: where it can be shared nobody writes.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def _name_holder(descriptor: int, path: Path) -> None:
    host = socket.gethostname()
    left = _read_name(descriptor)
    if left and left["host"] != host:
        logger.warning(
            f"{path}: {_named(left)} was killed while it wrote here; going on in its place"
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"host": host, "pid": os.getpid()}).encode(), 0)


def _read_name(descriptor: int) -> dict[str, Any] | None:
    """What the last holder wrote of itself; None where nobody has."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return None
    return holder if isinstance(holder, dict) and {"host", "pid"} <= holder.keys() else None


def _named(holder: dict[str, Any] | None) -> str:
    return f"process {holder['pid']} on {holder['host']}" if holder else "another process"
