"""Held-out reward against seconds, tokens and steps, and training curves; a line is a variant."""

from matplotlib.figure import Figure

from astarpo.experiments.records import Experiment
from astarpo.reports.curves import SMOOTH, Line, Panel, curves_figure
from astarpo.reports.page import plural
from astarpo.reports.style import label

_HELD_OUT = "held-out reward (mean)"


def draw_reward(experiment: Experiment) -> Figure | None:
    """Held-out reward against seconds, generated tokens and steps; None without any."""
    if not any(len(run.curve.against("step", "reward")[0]) for run in experiment.rows):
        return None
    panels = [
        Panel("seconds", "reward", "seconds (stage 1 included)", _HELD_OUT),
        Panel("tokens", "reward", "generated tokens ({unit}, stage 1 included)"),
        Panel("step", "reward", "training steps"),
    ]
    return curves_figure(
        [panels], _lines(experiment, "curve"), target=experiment.target, size=(3.8, 3.6)
    )


def draw_training(experiment: Experiment) -> Figure | None:
    """Training reward, KL and, if there is one algorithm only, loss; None without a step."""
    if not any(len(run.training.step) for run in experiment.rows):
        return None
    measures = {"reward": "training reward (mean)", "kl": "KL to reference (nats per response)"}
    # Losses of different algorithms share a name and nothing else.
    if len(experiment.algorithms) == 1:
        measures["loss"] = "loss"
    panels = [Panel("step", name, "training steps", words) for name, words in measures.items()]
    size = (11.4 / len(panels), 3.4)
    return curves_figure([panels], _lines(experiment, "training"), smooth=SMOOTH, size=size)


def _lines(experiment: Experiment, curves: str) -> list[Line]:
    lines = []
    for variant, runs in experiment.variants.items():
        num_collapsed = sum(run.collapsed for run in runs)
        words = f"{label(variant)} ({plural(len(runs), 'run')}"
        words += f", {num_collapsed} collapsed)" if num_collapsed else ")"
        whole = [dict(getattr(run, curves)) for run in runs if not run.collapsed]
        collapsed = [dict(getattr(run, curves)) for run in runs if run.collapsed]
        lines.append(Line(words, whole, collapsed))
    return lines
