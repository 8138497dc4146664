"""What several processes do together: fail, and write a folder whole or not at all."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from astarpo.runtime.distributed import OneProcess
from astarpo.runtime.files import atomic_directory, disk_errors
from astarpo.types import UserError


@contextmanager
def failing_together(
    where: OneProcess | None, kind: type[UserError] = UserError
) -> Iterator[None]:
    """A block at whose end all processes fail if one has: else the others would wait for it.

    Inside of the block a process must not leave others waiting either.

    Args:
        where: The processes, which all come to the end of the block; None for this one alone.
        kind: What is raised where another process has failed.

    Raises:
        Exception: What this process has failed with.
        UserError: Of the given kind: what another has failed with, and its rank.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if where is not None:
        reasons = where.gather([(where.rank, str(failure))] if failure else [])
        if reasons and failure is None:
            rank, reason = reasons[0]
            failure = kind(f"rank {rank}: {reason}")
    if failure:
        raise failure


@contextmanager
def shared_directory(path: Path, where: OneProcess) -> Iterator[Path]:
    """Yields a temporary folder, the same to all processes, that replaces `path` in the end.

    The first process makes it, and moves it into place once all have left the block without an
    error. A kill of any of them at any moment leaves the old folder or the new one. The processes
    are on one machine, or `path` is on a file system that their machines share.

    Raises:
        UserError: On all processes, where writing failed on any.
    """
    if where.size == 1:
        with atomic_directory(path) as temporary:
            yield temporary
        return
    temporary = None
    with failing_together(where), ExitStack() as stack:
        with failing_together(where):
            if where.is_first:
                temporary = stack.enter_context(atomic_directory(path))
        temporary = where.agree(temporary)
        assert temporary is not None
        # Inside of the first process's block, which then does not move the folder into place.
        with failing_together(where), disk_errors(path):
            yield temporary
