"""Pictures of a run and of a value table, drawn from their files alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from astarpo.runtime.files import write_atomic
from astarpo.values.estimators import ProblemValues
from astarpo.values.summary import level_counts

_CURVES = (
    ("reward", "mean reward"),
    ("kl", "KL to reference (nats per response)"),
    ("length_mean", "mean response length (tokens)"),
    ("loss", "loss (reward squared)"),
)
_SMOOTH = 10
_MEAN_REWARD = "mean reward of N samples"
_DASHES = ("-", "--", ":", "-.", (0, (8, 2, 1, 2)), (0, (1, 3)))


def plot_run(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws reward, KL, length and loss against step and against seconds into a PNG.

    Args:
        path: File to write.
        rows: A run's metrics, one a step.
    """
    steps = np.array([row["step"] for row in rows])
    seconds = np.cumsum([row["seconds"] for row in rows])
    figure = Figure(figsize=(9, 2.4 * len(_CURVES)), layout="constrained")
    axes = figure.subplots(len(_CURVES), 2, sharey="row", squeeze=False)
    for (left, right), (name, label) in zip(axes, _CURVES, strict=True):
        values = np.array([row[name] for row in rows])
        for axis, x in ((left, steps), (right, seconds)):
            axis.plot(x, values, color="0.75", linewidth=0.8)
            axis.plot(x, _running_mean(values), color="C0", linewidth=1.8)
            axis.grid(alpha=0.3)
        left.set_ylabel(label, fontsize=9)
    axes[-1][0].set_xlabel("step")
    axes[-1][1].set_xlabel("training time (s)")
    figure.suptitle(f"grey: each step; blue: mean of the last {_SMOOTH}", fontsize=9)
    _save(figure, path)


def plot_runs(path: Path, curves: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draws several runs' curves over one another, against step and seconds, into a PNG.

    Args:
        path: File to write.
        curves: Of each run by its name: columns `step`, `seconds` (so far) and those of metrics.
    """
    figure = Figure(figsize=(9, 2.4 * len(_CURVES)), layout="constrained")
    axes = figure.subplots(len(_CURVES), 2, sharey="row", squeeze=False)
    for (left, right), (name, label) in zip(axes, _CURVES, strict=True):
        for number, (run, columns) in enumerate(curves.items()):
            values = np.array([np.nan if v is None else v for v in columns[name]], dtype=float)
            style = {"color": f"C{number % 10}", "linestyle": _DASHES[number % len(_DASHES)]}
            for axis, x in ((left, columns["step"]), (right, columns["seconds"])):
                axis.plot(x, _running_mean(values), linewidth=1.8, label=run, **style)
                axis.grid(alpha=0.3)
        left.set_ylabel(label, fontsize=9)
    axes[0][0].legend(fontsize=8)
    axes[-1][0].set_xlabel("step")
    axes[-1][1].set_xlabel("training time (s)")
    figure.suptitle(f"mean of the last {_SMOOTH} steps", fontsize=9)
    _save(figure, path)


def plot_values(path: Path, values: ProblemValues, beta: float) -> None:
    """Draws V^* against the solve rate, and how many problems have each solve rate, into a PNG.

    Args:
        path: File to write.
        values: What stage 1 found of each problem.
        beta: The paper's beta_1, for the title.
    """
    most = int(values.num_samples_P.max())
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _plot_estimates(left, values)
    left.set_title(f"β₁ = {beta:g}, N = {most}, bars: one standard error", fontsize=9)
    levels, counts = level_counts(values.mean_P)
    gap = np.diff(levels).min() if len(levels) > 1 else 1 / most
    right.bar(levels, counts, width=0.8 * gap, color="C0")
    right.set_xlabel(_MEAN_REWARD)
    right.set_ylabel("problems")
    right.grid(alpha=0.3, axis="y")
    _save(figure, path)


def _plot_estimates(axis: Axes, values: ProblemValues) -> None:
    # Problems with the same rewards lie on one point; draw it once.
    columns = [values.mean_P, values.v_star_P, np.nan_to_num(values.standard_error_P)]
    points = np.unique(np.stack(columns, axis=1), axis=0)
    axis.errorbar(points[:, 0], points[:, 1], yerr=points[:, 2], fmt="o", capsize=3, color="C0")
    ends = [float(points[:, 0].min()), float(points[:, 0].max())]
    axis.plot(ends, ends, color="0.5", linestyle="--", label="mean reward")
    axis.set_xlabel(_MEAN_REWARD)
    axis.set_ylabel("estimated V* (reward)")
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)


def _running_mean(values: np.ndarray) -> np.ndarray:
    return np.array([values[max(0, i + 1 - _SMOOTH) : i + 1].mean() for i in range(len(values))])


def _save(figure: Figure, path: Path) -> None:
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=130))
