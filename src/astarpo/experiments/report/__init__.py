"""An experiment (`astarpo compare`, `astarpo sweep`) in pictures and one page that works offline.

results.json -> results.py -> curves.py, costs.py, sweeps.py -> PNG -> report.html
                           -> tables.py                             -> report.html
"""

import base64
import struct
import time
from collections.abc import Callable
from pathlib import Path
from string import Template

from astarpo.experiments.records import Experiment, read_results
from astarpo.experiments.report.costs import plot_costs
from astarpo.experiments.report.curves import plot_reward, plot_training
from astarpo.experiments.report.markup import note, notes, text
from astarpo.experiments.report.style import DPI, MAX_LINES
from astarpo.experiments.report.sweeps import plot_sweep, plot_value_error
from astarpo.experiments.report.tables import headline_tables, run_table, settings_tables
from astarpo.reports.page import asset, content_hash
from astarpo.runtime.files import write_atomic

_CAPTIONS = {
    "sweep.png": (
        "Against the setting",
        "A line is the mean over runs, a small mark is one run. A run that collapsed counts in "
        "avg@k on test with its last held-out reward, and in no other score.",
    ),
    "value-error.png": (
        "Error of V̂* against N",
        "Of V̂* from N samples, judged by V̂* from all samples of the same problems: near their "
        "number both are too low.",
    ),
    "reward.png": (
        "Held-out reward",
        "A line is the mean over the seeds that did not collapse, over the span that all of them "
        "cover; the band goes from their lowest to their highest. Seconds and tokens include "
        "stage 1 where the variant needs it: its line starts at that cost.",
    ),
    "cost.png": (
        "Time, memory and tokens",
        "Bars are means over runs, to the target over those that reached it; dots are runs. A run "
        "that collapsed counts up to where it ended.",
    ),
    "training.png": (
        "Training",
        "Means of the last 10 steps; lines and bands are as above.",
    ),
}


def write_experiment(out: Path) -> str:
    """Writes the pictures and the page of an experiment; one under way is shown as far as it is.

    Args:
        out: The experiment's folder, with `results.json` in it.

    Returns:
        What was written, in a line.

    Raises:
        UserError: The results cannot be read, or nothing can be written.
    """
    experiment = read_results(out)
    pictures = _draw(out, experiment)
    page = _render(out, experiment, pictures)
    write_atomic(out / "report.html", lambda file: file.write_text(page, encoding="utf-8"))
    count = len(experiment.rows)
    names = ", ".join(["report.html", *pictures])
    return f"{out}: {names}: {count} run{'s' * (count != 1)}, {len(page) / 1e6:.1f} MB"


def _draw(out: Path, experiment: Experiment) -> list[str]:
    """Draws what there is to draw; removes what an earlier state had and this has not."""
    plots: dict[str, Callable[[Path, Experiment], bool]] = {
        "reward.png": plot_reward,
        "cost.png": plot_costs,
        "training.png": plot_training,
    }
    if len(experiment.variants) > MAX_LINES:
        del plots["reward.png"], plots["training.png"]
    if experiment.kind == "sweep":
        plots = {"sweep.png": plot_sweep, "value-error.png": plot_value_error} | plots
    drawn = []
    for name in _CAPTIONS:
        if name in plots and plots[name](out / name, experiment):
            drawn.append(name)
        else:
            (out / name).unlink(missing_ok=True)
    return drawn


def _render(out: Path, experiment: Experiment, pictures: list[str]) -> str:
    style = asset("page.css") + asset("experiment.css")
    title = "Comparison" if experiment.kind == "compare" else f"Sweep over {experiment.setting}"
    made = f"astarpo {experiment.package_version}, {time.strftime('%Y-%m-%d %H:%M')}"
    return Template(asset("experiment.html")).substitute(
        title=text(f"{title}: {out.resolve().name}"),
        style=style,
        style_hash=content_hash(style),
        made=text(made),
        headline=headline_tables(experiment),
        notes=notes(_remarks(experiment)),
        pictures="".join(_figure(out / name) for name in pictures) or note("Nothing to draw yet."),
        runs=run_table(experiment, out) if experiment.rows else note("No run is finished yet."),
        settings=settings_tables(experiment),
    )


def _figure(path: Path) -> str:
    title, caption = _CAPTIONS[path.name]
    png = path.read_bytes()
    width, height = struct.unpack(">II", png[16:24])  # where every PNG has its size
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure class="picture"><figcaption>{text(title)}</figcaption>'
        f'<p class="muted">{text(caption)}</p>'
        f'<img alt="{text(f"{title}. {caption}")}" width="{width * 96 // DPI}" '
        f'height="{height * 96 // DPI}" src="data:image/png;base64,{data}"></figure>'
    )


def _remarks(experiment: Experiment) -> list[str]:
    remarks = ["Numbers are mean ± standard deviation over seeds."]
    if experiment.equal:
        remarks.append(f"Equal for all: {experiment.equal} (see astarpo compare --equal).")
    wanted = len(experiment.seeds) * len(experiment.variants)
    if len(experiment.rows) < wanted:
        remarks.append(f"Under way: {len(experiment.rows)} of at least {wanted} runs are finished.")
    remarks += [
        f"{run.name}: collapsed at step {run.steps}: {run.reason or 'no reason given'}"
        for run in experiment.rows
        if run.collapsed
    ]
    if len(experiment.variants) > MAX_LINES:
        remarks.append(f"More than {MAX_LINES} variants: their curves are not drawn.")
    return remarks
