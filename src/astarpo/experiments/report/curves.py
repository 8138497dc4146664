"""Reward against seconds, tokens and steps, and training curves: one line a variant."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from astarpo.experiments.records import Experiment, Run
from astarpo.experiments.report.style import finish, label, legend_below, look, save, token_unit

_SMOOTH = 10
_MAX_MARKERS = 8
_TARGET_LOOK: dict[str, Any] = {"color": "0.35", "linewidth": 1, "linestyle": (0, (6, 3))}
_COLLAPSED_LOOK: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (3, 2))}

Curve = tuple[np.ndarray, np.ndarray]
"""x, rising, and y."""


def band_of(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lowest and highest of several curves over the span that all of them cover.

    Args:
        curves: One a seed, each a line through its points.

    Returns:
        Grid (every x of a curve within the span), mean, low and high; empty without a shared span.
    """
    curves = [(x, y) for x, y in curves if len(x)]
    empty = np.array([])
    if not curves:
        return empty, empty, empty, empty
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    grid = grid[(grid >= first) & (grid <= last)]
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    return grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def plot_reward(path: Path, experiment: Experiment) -> bool:
    """Draws held-out reward against seconds, generated tokens and steps into a PNG.

    Returns:
        Whether there was anything to draw.
    """
    runs = [run for run in experiment.rows if len(run.curve.against("step", "reward")[0])]
    if not runs:
        return False
    size, unit = token_unit(max((t for run in runs for t in run.curve.tokens), default=0.0))
    panels = (
        ("seconds", 1.0, "seconds (stage 1 included)"),
        ("tokens", size, f"generated tokens ({unit}, stage 1 included)"),
        ("step", 1.0, "training steps"),
    )
    figure = Figure(figsize=(11, 4.3), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (x, scale, words) in zip(axes, panels, strict=True):

        def curve(run: Run, x: str = x, scale: float = scale) -> Curve:
            at, reward = run.curve.against(x, "reward")
            return at / scale, reward

        _draw_variants(axis, experiment, curve)
        if experiment.target is not None:
            axis.axhline(experiment.target, **_TARGET_LOOK)
        finish(axis, words)
        axis.set_xlim(left=0)
    axes[0].set_ylabel("held-out reward (mean)", fontsize=9)
    handles = _legend(experiment)
    if experiment.target is not None:
        words = f"target {experiment.target:g}"
        handles.append(Line2D([], [], label=words, **_TARGET_LOOK))
    legend_below(figure, handles)
    save(figure, path)
    return True


def plot_training(path: Path, experiment: Experiment) -> bool:
    """Draws training reward, KL and, of one algorithm, loss against steps into a PNG.

    Returns:
        Whether there was anything to draw.
    """
    panels = [("reward", "training reward (mean)"), ("kl", "KL to reference (nats per response)")]
    # Losses of different algorithms share a name and nothing else.
    if len(experiment.algorithms) == 1:
        panels.append(("loss", "loss"))
    if not any(len(run.training.step) for run in experiment.rows):
        return False
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, words) in zip(axes, panels, strict=True):

        def curve(run: Run, name: str = name) -> Curve:
            steps, values = run.training.against("step", name)
            return steps, _running_mean(values)

        _draw_variants(axis, experiment, curve)
        finish(axis, "training steps", words)
    legend_below(figure, _legend(experiment))
    save(figure, path)
    return True


def _draw_variants(axis: Axes, experiment: Experiment, curve: Callable[[Run], Curve]) -> None:
    for number, runs in enumerate(experiment.variants.values()):
        style = look(number)
        x, mean, low, high = band_of([curve(run) for run in runs if not run.collapsed])
        if len(x):
            every = max(1, len(x) // _MAX_MARKERS)
            # Markers of different lines stand at different points, so that none hides another.
            markers: Any = (number % every, every)
            axis.plot(x, mean, linewidth=1.8, markersize=5, markevery=markers, **style)
            axis.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        for run in runs:
            x, y = curve(run)
            if run.collapsed and len(x):
                axis.plot(x, y, color=style["color"], **_COLLAPSED_LOOK)
                axis.plot(x[-1], y[-1], color=style["color"], marker="x", markersize=7)


def _legend(experiment: Experiment) -> list[Line2D]:
    handles = []
    for number, (variant, runs) in enumerate(experiment.variants.items()):
        num_collapsed = sum(run.collapsed for run in runs)
        words = f"{label(variant)} ({len(runs)} run{'s' * (len(runs) != 1)}"
        words += f", {num_collapsed} collapsed)" if num_collapsed else ")"
        handles.append(Line2D([], [], linewidth=1.8, markersize=5, label=words, **look(number)))
    if any(run.collapsed for run in experiment.rows):
        words = "a run that collapsed, where it ended"
        handles.append(Line2D([], [], color="0.3", marker="x", label=words, **_COLLAPSED_LOOK))
    return handles


def _running_mean(values: np.ndarray) -> np.ndarray:
    return np.array([values[max(0, i + 1 - _SMOOTH) : i + 1].mean() for i in range(len(values))])
