"""Pictures of what training did by problem, from what `learning.summarize_learning` found."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from astarpo.reports.curves import PANEL, SMOOTH, running_mean
from astarpo.reports.page import plural
from astarpo.reports.style import BAR, GUIDE, LINE, embed, finish, look, single_panel

_MAX_AREA = 160.0  # points squared, of the dot with the most problems


def learning_pictures(found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """A picture of each part that was found, by its title, each with a sentence on how to read it.

    Args:
        found: What `learning.summarize_learning` returns, None in place of what is not a number.
    """
    draw: dict[str, tuple[str, Callable[[Axes, Any], None], Callable[[Any], str]]] = {
        "before_after": ("test problems, before against after", _draw_before_after, _tell_change),
        "reached": ("V* against what training then got", _draw_reached, _tell_reached),
        "thirds": ("reward by difficulty", _draw_thirds, _tell_thirds),
        "residuals": ("training answers by reward minus V*", _draw_residuals, _tell_residuals),
    }
    pictures = {}
    for name, (title, picture, words) in draw.items():
        if name in found:
            figure, axis = single_panel(PANEL)
            picture(axis, found[name])
            pictures[title] = (embed(figure), words(found[name]))
    return pictures


def _draw_before_after(axis: Axes, found: Mapping[str, Any]) -> None:
    before, after, count = np.array(found["points"]).T
    _draw_dots(axis, before, after, count)
    axis.plot([0, 1], [0, 1], **GUIDE)
    finish(axis, "mean reward of the reference", "of the trained policy")


def _tell_change(found: Mapping[str, Any]) -> str:
    return (
        f"A dot is problems with the same two mean rewards, larger for more of them. Above the "
        f"line they got better: {found['better']:,}; on it the same: {found['same']:,}; below it "
        f"worse: {found['worse']:,}."
    )


def _draw_reached(axis: Axes, rows: Sequence[Sequence[float]]) -> None:
    v_star, mean, low, high, count = np.array(rows).T
    axis.errorbar(v_star, mean, yerr=[mean - low, high - mean], fmt="none", capsize=3,
                  ecolor=look(0)["color"], elinewidth=1)  # fmt: skip
    _draw_dots(axis, v_star, mean, count)
    axis.plot([0, 1], [0, 1], label="reward = V*", **GUIDE)
    finish(axis, "V* of stage 1", "mean reward, last third")
    axis.legend(fontsize=8, frameon=False)


def _tell_reached(rows: Sequence[Sequence[float]]) -> str:
    above = sum(row[4] for row in rows if row[2] > row[0])
    below = sum(row[4] for row in rows if row[3] < row[0])
    everything = sum(row[4] for row in rows)
    return (
        f"Training problems by V*, with 95% intervals over problems. Of {everything:,} problems "
        f"{above:,} are at a V* that training surpassed, {below:,} at one that it stayed below. V* "
        "comes from few samples: at both ends it is partly luck."
    )


def _draw_thirds(axis: Axes, thirds: Sequence[Mapping[str, Any]]) -> None:
    for number, third in enumerate(thirds):
        y = np.array(third["reward"], dtype=float)
        x, y = np.array(third["step"])[np.isfinite(y)], y[np.isfinite(y)]
        style = look(number)
        every = max(1, len(x) // 8)
        axis.plot(x, running_mean(y, SMOOTH), label=third["name"], markevery=(number, every),
                  **LINE, **style)  # fmt: skip
    axis.set_xlim(left=0)
    low, high = axis.get_ylim()
    axis.set_ylim(min(0.0, low), max(1.05, high))
    finish(axis, "training steps", "mean reward")
    axis.legend(fontsize=8, frameon=False, handlelength=3.5)


def _tell_thirds(thirds: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for third in thirds:
        low, high = (f"{rate:.3g}" for rate in third["solve_rates"])
        span = low if low == high else f"{low} to {high}"
        count = plural(third["problems"], "problem")
        parts.append(f"{third['name']}: mean reward {span} in stage 1, {count}")
    return f"Problems trained on in thirds ({'; '.join(parts)}), mean of {SMOOTH} steps."


def _draw_residuals(axis: Axes, found: Mapping[str, Any]) -> None:
    edges = np.array(found["edges"])
    axis.bar(edges[:-1], found["early"], np.diff(edges), align="edge", color="0.88", hatch="///",
             label="first third of steps", **BAR)  # fmt: skip
    axis.stairs(found["late"], edges, color=look(0)["color"], linewidth=1.8,
                label="last third of steps")  # fmt: skip
    finish(axis, "reward minus V* of an answer", "share of answers")
    axis.grid(visible=False, axis="x")
    axis.margins(y=0.3)
    axis.locator_params(axis="x", nbins=5)
    axis.legend(fontsize=8, frameon=False)


def _tell_residuals(found: Mapping[str, Any]) -> str:
    early, late = (f"{mean:+.3f}" for mean in found["means"])
    return (
        f"The advantage of each answer of training: {early} on average in the first third of the "
        f"steps, {late} in the last. Above zero training makes an answer likelier, below less so."
    )


def _draw_dots(axis: Axes, x: np.ndarray, y: np.ndarray, count: np.ndarray) -> None:
    area = _MAX_AREA * np.maximum(count / count.max(), 0.04)
    axis.scatter(x, y, area, color=look(0)["color"], alpha=0.75, linewidth=0, zorder=3)
    axis.set_xlim(min(0.0, x.min()) - 0.06, max(1.0, x.max()) + 0.06)
    axis.set_ylim(min(0.0, y.min()) - 0.06, max(1.0, y.max()) + 0.06)
