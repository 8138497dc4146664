"""Stopping cleanly: SIGTERM or Ctrl-C asks for it, and long work often looks whether one has.

Signals belong to the process, and so does the request to stop. So long work needs no argument for
it: it calls `check_stop` wherever it may be given up.

Where several processes share the work (`distributed.py`), a signal to one of them stops all, and
once one has failed the others give up what they are at.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("astarpo")

STOPPED_STATUS = 3
"""Exit status of a command that a signal has stopped, its work saved: the same command goes on
(`train` with `--resume`)."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_active: list["StopSignal"] = []
_given_up = False
_held = 0
_signs_of_life = 0


class StopRequested(BaseException):
    """A signal has asked to stop; what was going on is given up.

    As with Ctrl-C, what handles failures must not take it for one.
    """


def stop_requested() -> bool:
    """Whether a signal has asked to stop; without a failed peer never outside a `StopSignal`."""
    show_life()
    return is_stopping()


def is_stopping() -> bool:
    """As `stop_requested`, asked by whoever watches the work and is no part of it."""
    return _given_up or (bool(_active) and _active[-1].requested)


def stop_due(grace_s: float = 0.0) -> bool:
    """Whether a signal has asked to stop, so many seconds ago, or another process has failed.

    Several processes that look together, and stop together, need not care for `hold_stop`.

    Args:
        grace_s: Seconds that the caller may take after the signal to get its work done after all.
    """
    show_life()
    return _given_up or (bool(_active) and _active[-1].since_s >= grace_s)


def check_stop(grace_s: float = 0.0) -> None:
    """Gives up what is going on if a signal has asked for it; does nothing outside a `StopSignal`.

    Args:
        grace_s: See `stop_due`.

    Raises:
        StopRequested: A signal came that long ago, or another process that shares the work failed.
    """
    if stop_due(grace_s) and (_given_up or not _held):
        raise StopRequested


@contextmanager
def hold_stop() -> Iterator[None]:
    """Context in which no signal ends work that several processes must do alike or not at all."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1


def request_stop() -> None:
    """Asks to stop in place of a signal, which another process has got."""
    if _active:
        _active[-1].request()


def give_up(given_up: bool = True) -> None:
    """Ends what is going on wherever it looks, since another process that shares it has failed."""
    global _given_up
    _given_up = given_up


def show_life() -> None:
    """Notes that the work goes on, for others that wait for it."""
    global _signs_of_life
    _signs_of_life += 1


def signs_of_life() -> int:
    """How often this process has shown that its work goes on."""
    return _signs_of_life


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

    def request(self) -> None:
        """Asks to stop as a signal does; a signal that comes later is then the first."""
        if not self.requested:
            self._requested_at = time.monotonic()
            logger.warning("stopping, and saving what is done (a second signal stops at once)")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
