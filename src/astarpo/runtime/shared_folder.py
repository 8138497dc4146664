"""Folders that several processes write together, whole or not at all."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from astarpo.runtime.distributed import OneProcess
from astarpo.runtime.files import atomic_directory, disk_errors
from astarpo.types import UserError


@contextmanager
def shared_directory(path: Path, where: OneProcess) -> Iterator[Path]:
    """Yields a temporary folder, the same to all processes, that replaces `path` in the end.

    The first process makes it and moves it into place once all have left the block without an
    error. A kill of any of them at any moment leaves the old folder or the new one. The processes
    are on one machine, or `path` is on a file system that their machines share.

    Raises:
        UserError: On all processes, where writing failed on any.
    """
    if where.size == 1:
        with atomic_directory(path) as temporary:
            yield temporary
        return
    failure: Exception | None = None
    temporary = None
    with ExitStack() as stack:
        try:
            if where.is_first:
                temporary = stack.enter_context(atomic_directory(path))
        except Exception as error:
            failure = error
        raise_together(failure, where)
        temporary = where.agree(temporary)
        assert temporary is not None
        try:
            with disk_errors(path):
                yield temporary
        except Exception as error:
            failure = error
        raise_together(failure, where)  # from inside the first process's block: nothing is moved
        try:
            stack.close()
        except Exception as error:
            failure = error
    raise_together(failure, where)


def raise_together(failure: Exception | None, where: OneProcess) -> None:
    """Raises an exception on all processes, if one has failed: its own, or what another says.

    Raises:
        Exception: This process's own.
        UserError: Another process's.
    """
    reasons = where.gather([(where.rank, str(failure))] if failure else [])
    if failure:
        raise failure
    if reasons:
        rank, reason = reasons[0]
        raise UserError(f"rank {rank}: {reason}")
