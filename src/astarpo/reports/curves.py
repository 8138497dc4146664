"""Draws curves: of a run, of several runs, and of an experiment's variants with bands.

A picture consists of panels, each with one measure against steps, seconds or generated tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from astarpo.reports.style import GUIDE, LINE, finish, legend_below, look, single_panel

Columns = Mapping[str, Sequence[float | None]]
"""A run: `step`, running totals `seconds` and `tokens`, and measures; None or nan if unknown.

A measure may have an interval in columns of its name with `_low` and `_high`.
"""
Curve = tuple[np.ndarray, np.ndarray]
"""Rising x values, and y values."""

SMOOTH = 10
"""Number of training steps that a running mean covers."""
PANEL = (3.8, 2.5)
"""Width and height of a panel in inches."""
_MAX_MARKERS = 8
_MIN_SHARE = 0.05
_LEGEND_ROW = 0.22  # inches
_RAW_LOOK: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.35}
_COLLAPSED_LOOK: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (3, 2))}


class Line(NamedTuple):
    """A named line.

    Attributes:
        label: Its name in the legend, as `style.label` gives it.
        runs: A run is drawn as it is; several as their mean, with a band from lowest to highest.
        collapsed: Runs that ended early: each a thin line that ends in a cross.
    """

    label: str
    runs: Sequence[Columns]
    collapsed: Sequence[Columns] = ()


class Panel(NamedTuple):
    """One measure against one axis.

    Attributes:
        x: Column of the axis: `step`, `seconds` or `tokens`.
        y: Column of the measure.
        x_label: The axis's name; `{unit}` becomes the unit that tokens are counted in.
        y_label: The measure's name.
        min_span: The y axis spans at least this much, so that noise does not fill the picture.
    """

    x: str
    y: str
    x_label: str
    y_label: str = ""
    min_span: float = 0.0


def curves_figure(
    grid: Sequence[Sequence[Panel]],
    lines: Sequence[Line],
    *,
    smooth: int = 1,
    target: float | None = None,
    size: tuple[float, float] = PANEL,
) -> Figure:
    """Draws lines into rows of panels.

    Args:
        grid: Rows of panels. They share a scale by row if each row has one measure.
        lines: Drawn in each panel, in this order.
        smooth: Number of points that the running mean covers. The points of a line with one run
            are drawn too, faint.
        target: Height of a horizontal line.
        size: Width and height of a panel in inches.
    """
    handles = _legend(lines, smooth, target)
    height = size[1] * len(grid) + _LEGEND_ROW * -(-len(handles) // 4)
    figure = Figure(figsize=(size[0] * len(grid[0]), height), layout="constrained")
    shared = "row" if all(len({panel.y for panel in row}) == 1 for row in grid) else False
    all_axes = figure.subplots(len(grid), len(grid[0]), squeeze=False, sharey=shared)
    for axes, row in zip(all_axes, grid, strict=True):
        for axis, panel in zip(axes, row, strict=True):
            _draw_panel(axis, panel, lines, smooth)
            if target is not None:
                axis.axhline(target, **GUIDE)
        for axis, panel in zip(axes, row, strict=True):
            _fit_scales(axis, panel.min_span)
    legend_below(figure, handles)
    return figure


def panel_figure(
    panel: Panel, lines: Sequence[Line], smooth: int = 1, target: float | None = None
) -> Figure:
    """One panel of `curves_figure` without a legend."""
    figure, axis = single_panel(PANEL)
    _draw_panel(axis, panel, lines, smooth)
    if target is not None:
        axis.axhline(target, **GUIDE)
    _fit_scales(axis, panel.min_span)
    return figure


def points(columns: Columns, x: str, y: str) -> Curve:
    """Two columns, cut to the shorter one, without points where either value is missing."""
    pairs = np.array(list(zip(columns[x], columns[y], strict=False)), dtype=float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pairs[:, 0], pairs[:, 1]


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` values at each value, of fewer at the start."""
    if not len(values):
        return values
    padded = np.concatenate([np.full(width - 1, np.nan), values])
    return np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def band_of(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lowest and highest of several curves over the span that all of them cover.

    Returns:
        Grid (every x of a curve within the span), mean, low and high; empty without a shared span.
    """
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        empty = np.array([])
        return empty, empty, empty, empty
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    grid = grid[(grid >= first) & (grid <= last)]
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    return grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def token_unit(largest: float) -> tuple[float, str]:
    """The unit for token counts on an axis: its size and its name."""
    return (1e6, "millions") if largest >= 1e6 else (1e3, "thousands")


def _draw_panel(axis: Axes, panel: Panel, lines: Sequence[Line], smooth: int) -> None:
    runs = [run for line in lines for run in (*line.runs, *line.collapsed)]
    scale, unit = 1.0, ""
    if panel.x == "tokens":
        ends = [points(run, panel.x, panel.y)[0].max(initial=0) for run in runs]
        scale, unit = token_unit(max(ends, default=0))

    def curve(run: Columns, width: int = smooth) -> Curve:
        x, y = points(run, panel.x, panel.y)
        return x / scale, running_mean(y, width)

    for number, line in enumerate(lines):
        style = look(number)
        if smooth > 1 and len(line.runs) == 1:
            axis.plot(*curve(line.runs[0], 1), color=style["color"], **_RAW_LOOK)
        x, mean, low, high = band_of([curve(run) for run in line.runs])
        if len(x):
            if len(lines) == 1 and len(x) > 1:
                style["marker"] = ""
            every = max(1, len(x) // _MAX_MARKERS)
            # Markers of different lines stand at different points, so that none hides another.
            axis.plot(x, mean, markevery=(number % every, every), **LINE, **style)
            axis.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if len(line.runs) == 1 and f"{panel.y}_low" in line.runs[0]:
            _draw_interval(axis, line.runs[0], panel, scale, style["color"])
        for run in line.collapsed:
            x, y = curve(run)
            axis.plot(x, y, color=style["color"], **_COLLAPSED_LOOK)
            axis.plot(x[-1:], y[-1:], color=style["color"], marker="x", markersize=7)
    finish(axis, panel.x_label.format(unit=unit), panel.y_label)


def _draw_interval(axis: Axes, run: Columns, panel: Panel, scale: float, color: str) -> None:
    """Draws a measure's own interval as a band."""
    ends = [points(run, panel.x, f"{panel.y}_{end}") for end in ("low", "high")]
    x = np.intersect1d(ends[0][0], ends[1][0])
    low, high = (np.interp(x, *curve) for curve in ends)
    axis.fill_between(x / scale, low, high, color=color, alpha=0.15, linewidth=0)


def _fit_scales(axis: Axes, min_span: float) -> None:
    """Starts the x axis at zero, and the y axis too wherever zero is near, and widens flat ones."""
    axis.set_xlim(left=0)
    _widen(axis, min_span)
    axis.locator_params(nbins=5)
    # Short numbers, with a power of ten above the axis where they are very small or large.
    axis.ticklabel_format(axis="y", useOffset=False, scilimits=(-3, 5))
    low, high = axis.get_ylim()
    if 0 < low < 0.5 * high:
        axis.set_ylim(bottom=0)


def _widen(axis: Axes, min_span: float) -> None:
    """Makes the y axis span at least that much and a share of its height, below zero if need be."""
    low, high = axis.get_ylim()
    span = max(min_span, _MIN_SHARE * max(abs(low), abs(high)))
    if 0 < high - low < span:
        below = (span - (high - low)) / 2
        bottom = low - below
        if bottom < 0 <= axis.dataLim.ymin:  # What is never negative keeps its zero.
            bottom = 0.0
        axis.set_ylim(bottom, bottom + span)


def _legend(lines: Sequence[Line], smooth: int, target: float | None) -> list[Artist]:
    handles: list[Artist] = []
    for number, line in enumerate(lines):
        style = look(number)
        if len(lines) == 1:
            style["marker"] = ""
        handles.append(Line2D([], [], label=line.label, **LINE, **style))
    if smooth > 1 and any(len(line.runs) == 1 for line in lines):
        words = f"each step (bold: mean of {smooth})"
        color = look(0)["color"] if len(lines) == 1 else "0.3"
        handles.append(Line2D([], [], color=color, label=words, **_RAW_LOOK))
    if any(line.collapsed for line in lines):
        words = "a run that collapsed, where it ended"
        handles.append(Line2D([], [], color="0.3", marker="x", label=words, **_COLLAPSED_LOOK))
    if target is not None:
        handles.append(Line2D([], [], label=f"target {target:g}", **GUIDE))
    return handles
