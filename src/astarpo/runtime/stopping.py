"""Stopping cleanly: SIGTERM or Ctrl-C asks for it, and long work often looks whether one has.

Signals belong to the process, and so does the request to stop. So long work needs no argument for
it: it calls `check_stop` wherever it may be given up.
"""

import logging
import signal
import threading
import time
from types import FrameType

logger = logging.getLogger("astarpo")

STOPPED_STATUS = 3
"""Exit status of a command that a signal has stopped, its work saved: the same command goes on
(`train` with `--resume`)."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_active: list["StopSignal"] = []


class StopRequested(BaseException):
    """A signal has asked to stop; what was going on is given up.

    As with Ctrl-C, what handles failures must not take it for one.
    """


def stop_requested() -> bool:
    """Whether a signal has asked to stop; never outside a `StopSignal`."""
    return bool(_active) and _active[-1].requested


def stop_due(grace_s: float = 0.0) -> bool:
    """Whether a signal has asked to stop, so many seconds ago; never outside a `StopSignal`.

    Args:
        grace_s: Seconds that the caller may take after the signal to get its work done after all.
    """
    return bool(_active) and _active[-1].since_s >= grace_s


def check_stop(grace_s: float = 0.0) -> None:
    """Gives up what is going on if a signal has asked for it; does nothing outside a `StopSignal`.

    Args:
        grace_s: See `stop_due`.

    Raises:
        StopRequested: A signal came that long ago.
    """
    if stop_due(grace_s):
        raise StopRequested


class StopSignal:
    """Turns the first SIGTERM or SIGINT into a request; the second acts as it always does.

    Use as a context manager. Outside the main thread, which alone may handle signals, it never asks
    for anything.
    """

    def __init__(self) -> None:
        self._requested_at: float | None = None
        self._previous = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._requested_at is not None

    @property
    def since_s(self) -> float:
        """Seconds since the signal; negative where none has come."""
        return -1.0 if self._requested_at is None else time.monotonic() - self._requested_at

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
            _active.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        if self in _active:
            _active.remove(self)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested_at = time.monotonic()
        logger.warning("stopping, and saving what is done (a second signal stops at once)")
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
