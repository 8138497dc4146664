"""Draws the README's picture: how A*-PO works, and what it costs beside PPO and GRPO.

    python benchmarks/picture.py [FOLDER] [--out docs/assets/picture.png]

FOLDER has the `results.json` of an `astarpo compare`; the committed one is
benchmarks/results/compare. Every line is the mean over the seeds, its band goes from the lowest to
the highest of them; tokens are those that were generated, stage 1 included.
"""

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from astarpo.experiments.records import Experiment, read_results
from astarpo.reports.curves import band_of, token_unit

ROOT = Path(__file__).parents[1]
SHOWN = {
    "rollout": ("A*-PO, no stage 1", "#56B4E9", (0, (4, 1, 1, 1, 1, 1))),
    "constant": ("A*-PO, N = 1", "#0072B2", "-"),
    "ppo": ("PPO", "#009E73", "-."),
    "grpo": ("GRPO", "#D55E00", "--"),
}
"""Variants in the picture: name, colour, dashes. `constant` is A*-PO from one sample a problem, and
`rollout` by the baseline of the rollout."""
_STAGE_1, _STAGE_2, _VALUE = "#E6F1F8", "#FBEBE0", "#FFF6D6"


def main() -> None:
    """Reads the command line and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "benchmarks/results/compare")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/assets/picture.png")
    given = parser.parse_args()
    figure = picture(read_results(given.folder))
    figure.savefig(given.out, dpi=150, metadata={"Software": None})
    print(given.out)


def picture(experiment: Experiment) -> Figure:
    """The method at the left, reward against generated tokens at the right."""
    figure = Figure(figsize=(11.6, 4.2), facecolor="white")
    method = figure.add_axes((0.005, 0.02, 0.575, 0.96))
    costs = figure.add_axes((0.645, 0.15, 0.345, 0.74))
    draw_method(method)
    draw_costs(costs, experiment)
    return figure


def draw_method(axis: Axes) -> None:
    """Stage 1, V* of each prompt, stage 2."""
    axis.set(xlim=(0, 100), ylim=(0, 66))
    axis.axis("off")
    _band(axis, 37, 28, _STAGE_1, "Stage 1: once, offline")
    _band(axis, 1, 32, _STAGE_2, "Stage 2: training")
    _box(axis, 2.5, 40, 19, "every\nprompt x")
    _box(axis, 28, 40, 22, "N answers of the\nreference policy")
    _box(axis, 56.5, 40, 16, "verifier:\nN rewards")
    _box(axis, 79, 40, 19, "V*(x)\nkept in a table", _VALUE)
    _box(axis, 2.5, 9, 19, "a batch of\nprompts x")
    _box(axis, 28, 9, 22, "one answer\nof the policy")
    _box(axis, 56.5, 9, 16, "verifier:\nreward r")
    _box(axis, 79, 9, 19, "least squares\n" r"$\beta_2\,\ln\frac{\pi}{\pi_{\rm ref}} \to r - V^*$")
    for y in (48, 17):
        for start, end in ((21.5, 28), (50, 56.5), (72.5, 79)):
            _arrow(axis, (start, y), (end, y))
    _arrow(axis, (88.5, 40), (88.5, 25.2))
    _arrow(axis, (88.5, 9), (39, 9), curve=-0.08)
    axis.text(63, 5.6, "update the policy", ha="center", va="top", fontsize=9.5, color="0.25")


def _band(axis: Axes, y: float, height: float, color: str, title: str) -> None:
    style = "round,pad=0,rounding_size=2"
    axis.add_patch(FancyBboxPatch((0.5, y), 99, height, style, facecolor=color, edgecolor="none"))
    axis.text(2.5, y + height - 2, title, va="top", fontsize=11, weight="bold", color="0.15")


def _box(axis: Axes, x: float, y: float, width: float, text: str, color: str = "white") -> None:
    style = "round,pad=0,rounding_size=1.5"
    patch = FancyBboxPatch((x, y), width, 16, style, facecolor=color, edgecolor="0.35", linewidth=1)
    axis.add_patch(patch)
    weight = "normal" if color == "white" else "bold"
    axis.text(x + width / 2, y + 8, text, ha="center", va="center", fontsize=9.5, weight=weight)


def _arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], curve: float = 0.0
) -> None:
    shape = f"arc3,rad={curve}"
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=13, color="0.25", connectionstyle=shape,
        shrinkA=0, shrinkB=0,
    )  # fmt: skip
    axis.add_patch(arrow)


def draw_costs(axis: Axes, experiment: Experiment) -> None:
    """Held-out reward against generated tokens."""
    runs = [run for run in experiment.rows if run.algorithm in SHOWN and not run.collapsed]
    scale, unit = token_unit(max(max(run.curve.tokens) for run in runs))
    for algorithm, (name, color, dashes) in SHOWN.items():
        if not (mine := [run for run in runs if run.algorithm == algorithm]):
            continue
        x, mean, low, high = band_of([run.curve.against("tokens", "reward") for run in mine])
        x = x / scale
        axis.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        seeds = "1 seed" if len(mine) == 1 else f"{len(mine)} seeds"
        axis.plot(x, mean, color=color, linestyle=dashes, linewidth=2.2, label=f"{name}, {seeds}")
        if x[0] > 0:
            axis.hlines(mean[0], 0, x[0], color=color, linestyle=":", linewidth=1.5)
            axis.text(x[0] * 1.15, mean[0] - 0.004, "stage 1", va="top", color=color)
    axis.set_xlabel(f"generated tokens ({unit}, stage 1 included)")
    axis.set_title("held-out reward", loc="left", fontsize=11, weight="bold", color="0.15")
    axis.set_xlim(left=0)
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right", fontsize="small")


if __name__ == "__main__":
    main()
