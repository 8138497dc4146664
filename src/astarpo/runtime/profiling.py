"""`--profile`: where a few steps spend their time.

    profile/trace.json.gz   for https://ui.perfetto.dev, with a range for each phase
    profile/table.txt       seconds of each phase, operators by their own time

A forward pass is thousands of operators and a step can be thousands of passes, too many for a
trace. Of each phase of a step the first four passes are recorded, then two whenever the number of
passes has doubled: short contexts and long ones, and the passes of a pair next to each other.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.profiler import ProfilerActivity, profile, record_function

from astarpo.runtime.files import write_atomic
from astarpo.runtime.stopwatch import Stopwatch

logger = logging.getLogger("astarpo")

_WARMUP_STEPS = 1
_STEPS = 2
_BURST = 2
_ROWS = 40

# Toggling one kind of activity without the others makes torch warn at every toggle.
_TOGGLED = (ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU)


class StepProfiler:
    """Profiles a few steps of a loop, after a first one that warms up, and writes what it saw.

    Use it as a context around the loop, and `step` at the start of each step. Results do not
    depend on it; the profiled steps are slower.
    """

    def __init__(
        self, out: Path, models: Sequence[Any], num_steps: int, *, enabled: bool = True
    ) -> None:
        """Prepares; nothing is recorded or written yet.

        Args:
            out: The folder `profile/` comes into this one.
            models: All that the steps run; transformers models.
            num_steps: How many steps the loop has: of one, the first is profiled.
            enabled: Off, everything passes through.
        """
        self._folder = out / "profile"
        self._embeddings = {model.get_input_embeddings() for model in models}
        self._waiting = min(_WARMUP_STEPS, num_steps - 1)
        self._left = _STEPS if enabled else 0
        self._profile: profile | None = None
        self._hooks: list[Any] = []
        self._collecting = True
        self._phase: str | None = None
        self._passes: Counter[str] = Counter()  # of this step, by phase
        self._seen: Counter[str] = Counter()
        self._recorded: Counter[str] = Counter()
        self._clock = Stopwatch()
        self._num_steps = 0

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finish()

    def step(self, stopwatch: Stopwatch) -> Stopwatch:
        """Begins a step.

        Returns:
            The stopwatch; in a step to be profiled one that adds to the same seconds, and whose
            phases are recorded.
        """
        if self._left == 0:
            self._finish()
            return stopwatch
        if self._waiting > 0:
            self._waiting -= 1
            return stopwatch
        if self._profile is None:
            self._start()
        self._left -= 1
        self._num_steps += 1
        self._passes.clear()
        return _RecordingStopwatch(stopwatch, self)

    @contextmanager
    def record(self, phase: str) -> Iterator[None]:
        """Records a block as a part of a phase."""
        self._phase = phase
        self._collect(True)
        with self._clock.phase(phase), record_function(phase):
            yield
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # what was asked for here shall not count elsewhere
        self._collect(False)
        self._phase = None

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._hooks = [e.register_forward_pre_hook(self._on_pass) for e in self._embeddings]
        self._hooks.append(register_optimizer_step_pre_hook(lambda *_: self._collect(True)))
        self._profile = profile(activities=activities)
        self._profile.start()
        self._collect(False)

    def _on_pass(self, *_: Any) -> None:
        """Decides whether to record what follows, up to the next pass of a model."""
        if self._phase is None:
            return
        first = self._passes[self._phase] // _BURST * _BURST
        wanted = first & (first - 1) == 0
        self._passes[self._phase] += 1
        self._seen[self._phase] += 1
        self._recorded[self._phase] += wanted
        self._collect(wanted)

    def _collect(self, wanted: bool) -> None:
        assert self._profile is not None
        if wanted != self._collecting:
            self._profile.toggle_collection_dynamic(wanted, _TOGGLED)
            self._collecting = wanted

    def _finish(self) -> None:
        if self._profile is None:
            return
        for hook in self._hooks:
            hook.remove()
        stopped, self._profile = self._profile, None
        stopped.stop()
        started = time.perf_counter()
        trace, table = self._folder / "trace.json.gz", self._folder / "table.txt"
        write_atomic(trace, lambda path: stopped.export_chrome_trace(str(path)))
        text = "\n\n".join([self._phases(), *_operators(stopped)]) + "\n"
        write_atomic(table, lambda path: path.write_text(text, encoding="utf-8"))
        size, seconds = trace.stat().st_size / 1e6, time.perf_counter() - started
        logger.info(f"{self._phases()}\n{trace}: {size:.1f} MB in {seconds:.0f} s")

    def _phases(self) -> str:
        seconds = self._clock.seconds
        total = sum(seconds.values())
        lines = [
            f"steps profiled, and slower for it: {self._num_steps}",
            f"{'phase':<12}{'seconds':>9}{'share':>8}   forward passes recorded",
        ]
        for phase, spent in seconds.items():
            seen = self._seen[phase]
            passes = f"   {self._recorded[phase]} of {seen}" if seen else ""
            lines.append(f"{phase:<12}{spent:>9.3f}{spent / total:>8.1%}{passes}")
        return "\n".join(lines)


class _RecordingStopwatch(Stopwatch):
    def __init__(self, stopwatch: Stopwatch, profiler: StepProfiler) -> None:
        super().__init__(stopwatch.seconds)
        self._profiler = profiler

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        with super().phase(name), self._profiler.record(name):
            yield


def _operators(stopped: profile) -> list[str]:
    """Tables of what took longest: on the GPU, where there is one, and on the CPU."""
    averages = [event for event in stopped.key_averages() if not event.is_user_annotation]
    tables = []
    for heading, device, attribute in (
        ("kernels by time on the GPU", DeviceType.CUDA, "self_device_time_total"),
        ("operators by their own time on the CPU", DeviceType.CPU, "self_cpu_time_total"),
    ):
        spent = {e: getattr(e, attribute) / 1e3 for e in averages if e.device_type == device}
        if total := sum(spent.values()):
            lines = [f"{heading}, recorded passes only", f"{'ms':>10}{'share':>8}{'calls':>9}"]
            for event in sorted(spent, key=lambda e: -spent[e])[:_ROWS]:
                share = spent[event] / total
                lines.append(f"{spent[event]:>10.2f}{share:>8.1%}{event.count:>9}   {event.key}")
            tables.append("\n".join(lines))
    return tables
