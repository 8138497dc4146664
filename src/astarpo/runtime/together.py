"""Folders that several processes write together, whole or not at all."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from astarpo.runtime.files import atomic_directory, disk_errors
from astarpo.runtime.one_process import OneProcess


@contextmanager
def shared_directory(path: Path, where: OneProcess) -> Iterator[Path]:
    """Yields a temporary folder, the same to all processes, that replaces `path` in the end.

    The first process makes it, and moves it into place once all have left the block without an
    error. A kill of any of them at any moment leaves the old folder or the new one. The processes
    are on one machine, or `path` is on a file system that their machines share.

    Raises:
        UserError: On all processes, where writing failed on any.
    """
    temporary = None
    with ExitStack() as stack:
        with where.together():
            if where.is_first:
                temporary = stack.enter_context(atomic_directory(path))
        temporary = where.agree(temporary)
        assert temporary is not None
        with where.together(), disk_errors(path):
            yield temporary
        with where.together():
            stack.close()
