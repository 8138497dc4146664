"""Draws scores, KL, loss and collapses against the swept setting, and the error of V*."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from astarpo.experiments.records import Experiment, Run
from astarpo.reports.style import GUIDE, LINE, finish, label, legend_below, look

Measure = Callable[[Run], float | None]

_LAST_STEPS = 10
_MAX_TICK_LETTERS = 48


class _Panel(NamedTuple):
    """One measure against the setting, with the reference policy's value beside it.

    Attributes:
        words: The axis's name.
        measure: Gives a run's value.
        reference: Gives the reference policy's value on the problems of a run.
        is_share: Whether the value of one run is only 0 or 1, so that only the mean is drawn.
    """

    words: str
    measure: Measure
    reference: Measure | None = None
    is_share: bool = False


def positions(values: Sequence[Any]) -> dict[str, float]:
    """The position of each value of the setting on the axis, by the value's text.

    Numbers stand at their log2, 0 a gap before the smallest and infinity a gap behind the largest.
    If any value is no number from 0, all stand side by side in their order.
    """
    texts = list(dict.fromkeys(map(value_text, values)))
    numbers = {text: _number(text) for text in texts}
    if any(number is None or number < 0 for number in numbers.values()):
        return {text: float(place) for place, text in enumerate(texts)}
    finite = {t: math.log2(n) for t, n in numbers.items() if n and math.isfinite(n)}
    low, high = min(finite.values(), default=0.0), max(finite.values(), default=0.0)
    gap = (high - low) / max(1, len(finite) - 1) or 1.0
    ends = {text: low - gap if number == 0 else high + gap for text, number in numbers.items()}
    return dict(sorted((ends | finite).items(), key=lambda item: item[1]))


def value_text(value: Any) -> str:
    """A value of the setting as text for the axis."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else str(value)


def draw_sweep(experiment: Experiment) -> Figure | None:
    """Accuracy, KL, loss and, if any, collapses against the setting; None without a value."""
    panels = _panels(experiment)
    if not panels:
        return None
    num_rows = math.ceil(len(panels) / 3)
    figure = Figure(figsize=(11, 3.1 * num_rows + 0.4), layout="constrained")
    axes = figure.subplots(num_rows, min(3, len(panels)), squeeze=False).ravel()
    places = positions([run.value for run in experiment.rows])
    ticks = [_wrap(label(text)) for text in places]
    widest = max(len(line) for tick in ticks for line in tick.splitlines() or [""])
    for axis, panel in zip(axes, panels, strict=False):
        for number, runs in enumerate(experiment.algorithms.values()):
            _draw_line(axis, runs, panel.measure, places, look(number))
            if not panel.is_share:
                _draw_runs(axis, runs, panel.measure, places, look(number)["color"])
        if panel.is_share:
            axis.set_ylim(-0.05, 1.05)
        if panel.reference:
            _draw_line(axis, experiment.rows, panel.reference, places, GUIDE)
        axis.set_xticks(list(places.values()), ticks)
        finish(axis, label(experiment.setting or ""), panel.words)
        if widest * len(places) > _MAX_TICK_LETTERS:
            axis.tick_params(axis="x", rotation=40)
    for axis in axes[len(panels) :]:
        axis.remove()
    legend_below(figure, _legend(experiment, with_reference=any(p.reference for p in panels)))
    return figure


def draw_value_error(experiment: Experiment) -> Figure | None:
    """Bias and spread of V^* against the number of samples; None where it was not measured."""
    found = experiment.value_error
    if found is None or not found.n:
        return None
    count = min(len(found.n), len(found.bias), len(found.sd))
    n, bias, sd = (np.array(column[:count]) for column in (found.n, found.bias, found.sd))
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.axhline(0, color="0.5", linewidth=0.8)
    lines = (
        ("bias", bias),
        ("standard deviation", sd),
        ("root mean square error", np.hypot(bias, sd)),
    )
    for number, (words, values) in enumerate(lines):
        axis.plot(n, values, label=words, **LINE, **look(number))
    axis.set_xscale("log", base=2)
    axis.set_xticks(n, [f"{value:g}" for value in n])
    axis.minorticks_off()
    finish(axis, "N: samples per problem of stage 1", "error of V̂* (reward)")
    axis.legend(fontsize=8, frameon=False)
    return figure


def _panels(experiment: Experiment) -> list[_Panel]:
    """The panels for which any run has a value."""
    panels = [
        _score_panel(split, name)
        for split in experiment.splits
        for name in experiment.score_names(split)
        if name.startswith("avg_at_") or name == "pass_at_1"
    ]
    panels.append(_Panel("final KL to reference (nats)", lambda run: run.kl))
    panels.append(_Panel(f"final loss (mean of last {_LAST_STEPS} steps)", _final_loss))
    if any(run.collapsed for run in experiment.rows):
        if not any(name.startswith("avg_at_") for name in experiment.score_names("test")):
            panels.append(_Panel("last held-out reward", lambda run: run.last_reward))
        words = "share of runs that collapsed"
        panels.append(_Panel(words, lambda run: float(run.collapsed), is_share=True))
    return [p for p in panels if any(p.measure(run) is not None for run in experiment.rows)]


def _score_panel(split: str, name: str) -> _Panel:
    how = "greedy" if name == "pass_at_1" else name.replace("_at_", "@")
    return _Panel(
        f"accuracy, {label(split)} ({how})",
        lambda run: run.score(split, name),
        lambda run: run.reference_score(split, name),
    )


def _final_loss(run: Run) -> float | None:
    losses = run.training.against("step", "loss")[1]
    return float(losses[-_LAST_STEPS:].mean()) if len(losses) and not run.collapsed else None


def _draw_line(
    axis: Axes,
    runs: Sequence[Run],
    measure: Measure,
    places: Mapping[str, float],
    style: Mapping[str, Any],
) -> None:
    """Draws the mean over runs at each value of the setting."""
    values: dict[float, list[float]] = {}
    for run in runs:
        if (value := measure(run)) is not None:
            values.setdefault(places[value_text(run.value)], []).append(value)
    x = sorted(values)
    axis.plot(x, [np.mean(values[at]) for at in x], **(LINE | dict(style)))


def _draw_runs(
    axis: Axes, runs: Sequence[Run], measure: Measure, places: Mapping[str, float], color: str
) -> None:
    for run in runs:
        if (value := measure(run)) is not None:
            axis.plot(
                places[value_text(run.value)], value, marker="x" if run.collapsed else "o",
                markersize=4, color=color, markerfacecolor="white",
            )  # fmt: skip


def _legend(experiment: Experiment, with_reference: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], label=f"{label(name)}, mean", **(LINE | look(number)))
        for number, name in enumerate(experiment.algorithms)
    ]
    dot: dict[str, Any] = {"color": "0.3", "linestyle": "", "markersize": 4}
    handles.append(
        Line2D([], [], marker="o", markerfacecolor="white", label="one run (a seed)", **dot)
    )
    if any(run.collapsed for run in experiment.rows):
        handles.append(
            Line2D(
                [], [], marker="x", label="a run that collapsed, at its last held-out reward", **dot
            )
        )
    if with_reference:
        handles.append(Line2D([], [], label="reference policy", **GUIDE))
    return handles


def _wrap(text: str) -> str:
    """Breaks a name that is too long for a tick at its underscores."""
    return textwrap.fill(text.replace("_", "_ "), 12).replace("_ ", "_")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
