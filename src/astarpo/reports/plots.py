"""Pictures of a run and of a value table, for files and for pages."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from astarpo.reports.curves import (
    PANEL,
    SMOOTH,
    Columns,
    Line,
    Panel,
    curves_figure,
    panel_figure,
    points,
)
from astarpo.reports.style import BAR, GUIDE, LINE, embed, finish, label, look, save, single_panel
from astarpo.values.estimators import ProblemValues
from astarpo.values.summary import count_words, level_counts

MEASURES = {
    "reward": ("mean reward", ""),
    "kl": ("KL to reference", "nats per response"),
    "length_mean": ("mean response length", "tokens"),
    "loss": ("loss", "reward squared"),
    "entropy": ("entropy", "nats per token"),
    "grad_norm": ("gradient norm", ""),
}
"""Measures of each training step that are drawn, each with its name and unit."""
_MIN_SPANS = {
    "reward": 0.1, "kl": 0.01, "length_mean": 5.0, "loss": 0.01, "entropy": 0.05, "grad_norm": 0.01
}  # fmt: skip
AXES = {
    "step": "training steps",
    "seconds": "seconds of training",
    "tokens": "generated tokens ({unit})",
}
"""Columns that measures are drawn against, each with the axis's name."""
HELD_OUT = "held-out reward"
"""Name of the mean reward on problems that are not trained on."""
_IN_FILES = ("reward", "kl", "length_mean", "loss")
_MEAN_REWARD = "mean reward of the samples"


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """A run's metrics as columns, from rows of one step each; seconds and tokens are summed up."""
    columns = {name: [row.get(name) for row in rows] for name in ("step", *MEASURES)}
    for name in ("seconds", "tokens"):
        columns[name] = np.cumsum([row.get(name) or 0 for row in rows]).tolist()
    return columns


def held_out_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Evaluations on held-out problems as columns; the reward's interval is `reward_low`, `_high`.

    Seconds and tokens are those of training up to the evaluation.
    """
    names = {"step": "step", "seconds": "seconds", "tokens": "tokens", "reward": "reward",
             "reward_low": "low", "reward_high": "high"}  # fmt: skip
    whole = [row for row in rows if all(_is_number(row.get(name)) for name in names.values())]
    return {name: [row[source] for row in whole] for name, source in names.items()}


def plot_run(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws a run's metrics, a row for each step, as `plot_runs` does."""
    plot_runs(path, {f"mean of the last {SMOOTH} steps": columns_of(rows)})


def plot_runs(path: Path, curves: Mapping[str, Columns]) -> None:
    """Draws reward, KL, length and loss against steps and against seconds into a PNG.

    Args:
        path: File to write.
        curves: The columns of each run by its name, as `columns_of` gives them.
    """
    grid = [
        [_panel(x, name, with_name=x == "step") for x in ("step", "seconds")] for name in _IN_FILES
    ]
    save(curves_figure(grid, _lines(curves), smooth=SMOOTH), path)


def curve_pictures(curves: Mapping[str, Columns]) -> dict[str, dict[str, str]]:
    """A picture of each measure that has a value, against each axis, for a page."""
    lines = _lines(curves)
    return {
        name: {x: embed(panel_figure(_panel(x, name), lines, SMOOTH)) for x in AXES}
        for name in MEASURES
        if any(len(points(columns, "step", name)[0]) for columns in curves.values())
    }


def held_out_pictures(held_out: Mapping[str, Columns]) -> dict[str, str]:
    """The held-out reward with its interval against each axis, for a page; none without two."""
    if not any(len(columns["step"]) > 1 for columns in held_out.values()):
        return {}
    lines = _lines(held_out)
    panels = {x: Panel(x, "reward", AXES[x], HELD_OUT, _MIN_SPANS["reward"]) for x in AXES}
    return {x: embed(panel_figure(panel, lines)) for x, panel in panels.items()}


def key_picture(number: int) -> str:
    """The nth line alone, for a legend outside pictures."""
    figure = Figure(figsize=(0.5, 0.16))
    figure.add_artist(Line2D([0.02, 0.5, 0.98], [0.5] * 3, markevery=[1], **LINE, **look(number)))
    return embed(figure)


def plot_values(path: Path, values: ProblemValues, beta: float) -> None:
    """Draws V* against the solve rate, and how many problems have each solve rate, into a PNG."""
    counts = count_words(np.unique(values.num_samples_P).tolist())
    figure = Figure(figsize=(2 * PANEL[0], 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    columns = [values.mean_P, values.v_star_P, np.nan_to_num(values.standard_error_P)]
    _draw_estimates(left, np.unique(np.stack(columns, axis=1), axis=0))
    figure.suptitle(f"β₁ = {beta:g}, N = {counts}", fontsize=9)
    _draw_solve_rates(right, *(part.tolist() for part in level_counts(values.mean_P)))
    save(figure, path)


def stage1_pictures(found: Mapping[str, Any]) -> dict[str, str]:
    """Pictures of what `stage1.summarize_stage1` found, by their titles."""
    points_P3 = np.array(found["points"])[:, :3]
    parts: list[tuple[str, Callable[..., None], Any]] = [
        ("problems by solve rate", _draw_solve_rates, found["solve_rates"]),
        ("V* against solve rate", _draw_estimates, {"points_P3": points_P3}),
        ("samples by length", _draw_lengths, found["lengths"]),
    ]
    pictures = {}
    for title, draw, numbers in parts:
        if numbers:
            figure, axis = single_panel(PANEL)
            draw(axis, **numbers)
            pictures[title] = embed(figure)
    return pictures


def _lines(curves: Mapping[str, Columns]) -> list[Line]:
    return [Line(label(name), [columns]) for name, columns in curves.items()]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _panel(x: str, name: str, with_name: bool = True) -> Panel:
    words, unit = MEASURES[name]
    y_label = f"{words}\n({unit})" if unit else words
    return Panel(x, name, AXES[x], y_label if with_name else "", _MIN_SPANS[name])


def _draw_estimates(axis: Axes, points_P3: np.ndarray) -> None:
    """Draws V* with its standard error against mean reward, a point for equal problems."""
    mean, value, error = points_P3.T
    lowest, highest = min(0.0, float(mean.min())), max(1.0, float(mean.max()))
    # V* lies within the rewards, and so do its errors.
    errors = np.minimum(error, [value - lowest, highest - value]).clip(min=0)
    axis.errorbar(
        mean, value, yerr=errors, fmt="o", markersize=5, capsize=3, color=look(0)["color"]
    )
    ends = [lowest, highest]
    axis.plot(ends, ends, label="mean reward (β₁ = ∞)", **GUIDE)
    finish(axis, _MEAN_REWARD, "V*, ± one standard error")
    axis.legend(fontsize=8, frameon=False)


def _draw_solve_rates(axis: Axes, x: Sequence[float], count: Sequence[int]) -> None:
    gap = float(np.diff(x).min()) if len(x) > 1 else 0.1
    axis.bar(x, count, width=0.8 * gap, color=look(0)["color"], **BAR)
    axis.set_xlim(min(0.0, x[0]) - gap / 2, max(1.0, x[-1]) + gap / 2)
    finish(axis, _MEAN_REWARD, "problems")
    axis.grid(visible=False, axis="x")


def _draw_lengths(
    axis: Axes, edges: Sequence[float], right: Sequence[int], not_right: Sequence[int]
) -> None:
    width = np.diff(edges)
    axis.bar(edges[:-1], right, width, align="edge", color=look(0)["color"], label="right", **BAR)
    rest: dict[str, Any] = {"color": "0.88", "hatch": "///", "label": "not right"}
    axis.bar(edges[:-1], not_right, width, bottom=right, align="edge", **rest, **BAR)
    finish(axis, "tokens of a sample", "samples")
    axis.grid(visible=False, axis="x")
    axis.margins(y=0.25)
    axis.legend(fontsize=8, frameon=False, ncols=2)
