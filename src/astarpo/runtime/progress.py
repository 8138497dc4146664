"""Progress of long work: a bar in a terminal or notebook, else a plain line now and then."""

import html
import logging
import sys
import time
from typing import Any

from astarpo.runtime.launch import is_first_rank
from astarpo.runtime.locks import beat
from astarpo.runtime.log import in_notebook
from astarpo.runtime.stopping import show_life

logger = logging.getLogger("astarpo")

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_DISPLAYS = 0.5


class Progress:
    """Counts towards a total, as a context manager; of several ranks the first one shows it.

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
        self._display: Any = None  # a notebook's, of one output that is replaced again and again

    def __enter__(self) -> "Progress":
        if in_notebook():
            from IPython.display import display

            self._display = display(self._page(0.0), raw=True, display_id=True)
        elif sys.stderr.isatty() and is_first_rank():
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
        if self._display:
            self._display.update(self._page(self._rate()), raw=True)

    def advance(self, count: int, note: str | None = None) -> None:
        """Counts `count` more and shows `note` beside the count."""
        beat()
        show_life()
        self._done += count
        self._note = self._note if note is None else note
        now, rate = time.monotonic(), self._rate()
        text = f"{rate:.3g}/s  {self._note}"
        if self._bar:
            self._bar.update(self._bar.task_ids[0], advance=count, note=text)
        elif self._display:
            if now - self._last_line > _SECONDS_BETWEEN_DISPLAYS:
                self._last_line = now
                self._display.update(self._page(rate), raw=True)
        elif now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            minutes = (self.total - self._done) / max(1e-9, rate) / 60
            logger.info(f"{self.label} {self._done}/{self.total}  {minutes:.1f} min left  {text}")

    def _rate(self) -> float:
        seconds = max(1e-9, time.monotonic() - self._started)
        return (self._done - self._done_before) / seconds

    def _page(self, rate: float) -> dict[str, str]:
        """How a notebook shows it: as text, and as HTML, whose bar needs no extension."""
        left = f", {(self.total - self._done) / rate / 60:.1f} min left" if rate else ""
        said = f"{self.label} {self._done}/{self.total}  {rate:.3g}/s{left}  {self._note}".rstrip()
        bar = f'<progress value="{self._done}" max="{self.total}"></progress>'
        return {"text/plain": said, "text/html": f"<div>{bar} {html.escape(said)}</div>"}
