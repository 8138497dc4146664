"""Bars of time, memory and tokens by variant: whole runs, and up to the target."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from astarpo.experiments.records import Experiment, Run
from astarpo.reports.curves import token_unit
from astarpo.reports.style import BAR, finish, label, look

_PHASE_LOOKS = {
    "estimate": ("#0072B2", "//", "stage 1"),
    "generate": ("#E69F00", "", "generate"),
    "verify": ("#CC79A7", "xx", "verify"),
    "reference": ("#56B4E9", "..", "reference"),
    "update": ("#E0E0E0", "\\\\", "update"),
}


def draw_costs(experiment: Experiment) -> Figure | None:
    """Seconds by phase, peak memory, and seconds and tokens to the target; None without a run."""
    variants = experiment.variants
    if not variants:
        return None
    with_target = any(run.to_target for runs in variants.values() for run in runs)
    num_rows = 2 if with_target else 1
    height = num_rows * (0.42 * len(variants) + 1.0) + 0.4
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots(num_rows, 2, squeeze=False, sharey=True)
    _draw_phases(axes[0][0], variants)
    memory = [[run.peak_memory_gib for run in runs] for runs in variants.values()]
    _draw_bars(axes[0][1], memory, "peak memory (GiB)")
    if with_target:
        _draw_to_target(axes[1], variants, experiment.target)
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(variants)), [label(name) for name in variants], fontsize=9)
    axes[0][0].invert_yaxis()
    return figure


def _draw_phases(axis: Axes, variants: dict[str, list[Run]]) -> None:
    left = np.zeros(len(variants))
    for phase, (color, hatch, words) in _PHASE_LOOKS.items():
        means = np.array(
            [np.mean([getattr(run.seconds, phase) for run in runs]) for runs in variants.values()]
        )
        if means.any():
            style: dict[str, Any] = BAR | {"color": color, "hatch": hatch, "label": words}
            axis.barh(range(len(variants)), means, left=left, height=0.6, **style)
            left += means
    for place, (total, runs) in enumerate(zip(left, variants.values(), strict=True)):
        num_collapsed = sum(run.collapsed for run in runs)
        words = f", {num_collapsed} of {len(runs)} collapsed" if num_collapsed else ""
        _write(axis, total, place, f"mean {_show(total)}{words}")
    axis.margins(x=0.35)
    finish(axis, "seconds of a whole run, by phase")
    axis.grid(visible=False, axis="y")
    if left.any():
        axis.legend(
            fontsize=8, ncols=5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1),
            borderaxespad=0.2, columnspacing=1.0,
        )  # fmt: skip


def _draw_to_target(
    axes: Sequence[Axes], variants: dict[str, list[Run]], target: float | None
) -> None:
    costs = [[run.to_target for run in runs] for runs in variants.values()]
    size, unit = token_unit(max(cost.tokens for group in costs for cost in group if cost))
    words = "held-out reward" if target is None else f"held-out reward {target:g}"
    seconds = [[cost.seconds if cost else None for cost in group] for group in costs]
    _draw_bars(axes[0], seconds, f"seconds to {words} (stage 1 included)")
    tokens = [[cost.tokens / size if cost else None for cost in group] for group in costs]
    _draw_bars(axes[1], tokens, f"generated tokens to {words} ({unit}, stage 1 included)")


def _draw_bars(axis: Axes, groups: Sequence[Sequence[float | None]], words: str) -> None:
    """Draws a bar for each group, as long as its mean, and a dot for each value."""
    for place, group in enumerate(groups):
        values = [value for value in group if value is not None]
        if not values:
            _write(axis, 0.0, place, "none")
            continue
        mean = float(np.mean(values))
        axis.barh(place, mean, height=0.6, color="0.85", **BAR)
        axis.plot(
            values, [place] * len(values), marker="o", markersize=4.5, linestyle="",
            color=look(0)["color"], markerfacecolor="white",
        )  # fmt: skip
        share = f", {len(values)} of {len(group)}" if len(values) < len(group) else ""
        _write(axis, max(values), place, f"mean {_show(mean)}{share}")
    axis.margins(x=0.25)
    axis.set_xlim(left=0)
    finish(axis, words)
    axis.grid(visible=False, axis="y")


def _write(axis: Axes, x: float, y: int, words: str) -> None:
    axis.annotate(words, (x, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
