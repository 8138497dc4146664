"""Seconds by phase of the work; in a profiler's trace, a range for each phase."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class Stopwatch:
    """Seconds spent in each phase since it was made."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the seconds of a block to a phase, until a GPU has done what it was asked to."""
        started = time.perf_counter()
        try:
            with torch.profiler.record_function(name):
                yield
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
