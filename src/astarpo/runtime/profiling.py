"""`--profile`: where two steps spend their time, after a first one that warms up.

profile/trace.json.gz   for https://ui.perfetto.dev, with every operator and a range for each phase
profile/table.txt       seconds of each phase, operators by their own time
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from astarpo.runtime.files import write_atomic
from astarpo.runtime.tables import text_table

logger = logging.getLogger("astarpo")

_ROWS = 40


@contextmanager
def profile_steps(
    out: Path, num_steps: int, *, enabled: bool = True
) -> Iterator[Callable[[], None]]:
    """Profiles steps of a loop, which are slower for it and give the same results.

    Args:
        out: The folder that `profile/` comes into.
        num_steps: How many steps the loop has; where it is one, that one is profiled.
        enabled: Whether anything is to be profiled.

    Yields:
        What to call at the start of each step.
    """
    if not enabled or num_steps == 0:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    steps = schedule(wait=0, warmup=1, active=2, repeat=1) if num_steps > 1 else None
    begun = count()

    def begin_step() -> None:
        if next(begun) > 0:
            profiler.step()

    write = partial(_write, out / "profile")
    with profile(activities=activities, schedule=steps, on_trace_ready=write) as profiler:
        yield begin_step


def _write(folder: Path, stopped: profile) -> None:
    """Writes the trace and the table, also of the steps before a failure."""
    trace, table = folder / "trace.json.gz", folder / "table.txt"
    write_atomic(trace, lambda path: stopped.export_chrome_trace(str(path)))
    averages = stopped.key_averages()
    ranges = {
        event.key: event
        for event in averages
        if event.is_user_annotation and event.device_type == DeviceType.CPU
    }
    steps = ranges.pop("ProfilerStep*", None)  # none where the loop has one step
    # torch's own ranges, such as Optimizer.step#AdamW.step, lie within those of phases.
    phases = {name: event for name, event in ranges.items() if "#" not in name}
    total_us = sum(event.cpu_time_total for event in phases.values())
    rows = [("phase", "seconds", "share")]
    for name, event in phases.items():
        spent_us = event.cpu_time_total
        rows.append((name, f"{spent_us / 1e6:.3f}", f"{spent_us / total_us:.1%}"))
    heading = f"steps profiled, and slower for it: {steps.count if steps else 1}"
    summary = "\n".join([heading, *text_table(rows, right={1, 2})])
    devices = ["device", "cpu"] if torch.cuda.is_available() else ["cpu"]
    operators = [
        averages.table(sort_by=f"self_{device}_time_total", row_limit=_ROWS) for device in devices
    ]
    text = "\n\n".join([summary, *operators])
    write_atomic(table, lambda path: path.write_text(text, encoding="utf-8"))
    logger.info(f"{summary}\n{trace}: {trace.stat().st_size / 1e6:.1f} MB")
