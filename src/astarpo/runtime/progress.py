"""Progress of long work: a bar in a terminal, otherwise a plain line now and then."""

import logging
import sys
import time

from astarpo.runtime.locks import beat

logger = logging.getLogger("astarpo")

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts towards a total, as a context manager.

    Attributes:
        label: What is counted.
        total: How many there are.
    """

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label = label
        self.total = total
        self._done = self._done_before = done
        self._note = ""
        self._started = self._last_line = time.monotonic()
        self._bar = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._bar.add_task(self.label, total=self.total, completed=self._done, note="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, count: int, note: str | None = None) -> None:
        """Counts `count` more and shows `note` beside the count."""
        beat()
        self._done += count
        self._note = self._note if note is None else note
        now = time.monotonic()
        rate = (self._done - self._done_before) / max(1e-9, now - self._started)
        text = f"{rate:.3g}/s  {self._note}"
        if self._bar:
            self._bar.update(self._bar.task_ids[0], advance=count, note=text)
        elif now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            minutes = (self.total - self._done) / max(1e-9, rate) / 60
            logger.info(f"{self.label} {self._done}/{self.total}  {minutes:.1f} min left  {text}")
