"""Where the log is shown: by the command line, and while a call in Python or a notebook lasts."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from astarpo.runtime.launch import is_first_rank
from astarpo.runtime.words import shown

LOGGER = logging.getLogger("astarpo")

_LONGEST_LINE = 20_000
"""Characters of a log line, which may be a table, that are shown."""


class LogHandler(logging.Handler):
    """Writes to what `sys.stderr` is at that time: a progress bar replaces it while it is shown.

    In a notebook it is `sys.stdout`, since notebooks show the other on red, as errors. Lines may
    hold text of files that came from somebody else; it does not move the cursor.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        stream = sys.stdout if in_notebook() else sys.stderr
        stream.write(shown(self.format(record), _LONGEST_LINE) + "\n")
        stream.flush()


def told_level() -> int:
    """The lowest level of what is told here: the first rank speaks for all, others of errors."""
    return logging.INFO if is_first_rank() else logging.ERROR


@contextmanager
def shown_log() -> Iterator[None]:
    """Shows the log of this package while the block lasts, unless somebody else sees to logs.

    An application that has set up logging, for all or for `astarpo`, is left alone; so is one that
    has set a level for `astarpo`.
    """
    if LOGGER.handlers or logging.getLogger().handlers or LOGGER.level != logging.NOTSET:
        yield
        return
    handler = LogHandler()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(told_level())
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(logging.NOTSET)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
