"""The report of an experiment (`astarpo compare`, `astarpo sweep`): pictures and a page.

results.json -> records.py -> curves.py, costs.py, sweeps.py -> PNG, report.html
                           -> table.py, tables.py            -> report.html
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from astarpo.experiments.records import Experiment, read_results
from astarpo.experiments.report.costs import draw_costs
from astarpo.experiments.report.curves import draw_reward, draw_training
from astarpo.experiments.report.sweeps import draw_sweep, draw_value_error
from astarpo.experiments.report.tables import run_table, settings_tables
from astarpo.experiments.table import make_tables
from astarpo.reports.page import plural, render
from astarpo.reports.style import MAX_LINES, embed, save
from astarpo.runtime.files import write_atomic

_CAPTIONS = {
    "sweep.png": (
        "Against the setting",
        "A line is the mean over runs, a small mark is one run. A run that collapsed counts in "
        "avg@k on test with its last held-out reward, and in no other score.",
    ),
    "value-error.png": (
        "Error of V̂* against N",
        "V̂* from N samples compared with V̂* from all samples of the same problems. Where N comes "
        "near the number of all samples, bias and spread look smaller than they are.",
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
        "Running means over 10 steps, with lines and bands as above. Where a variant has only one "
        "run, its steps are drawn too, faint.",
    ),
}


def write_experiment(out: Path) -> str:
    """Writes the pictures and the page of an experiment, also of one that is still under way.

    Args:
        out: The experiment's folder, with `results.json` in it.

    Returns:
        A line that says what was written.
    """
    experiment = read_results(out)
    figures = _draw(experiment)
    for name in _CAPTIONS:
        if name in figures:
            save(figures[name], out / name)
        else:  # An earlier state of the experiment may have had it.
            (out / name).unlink(missing_ok=True)
    page = _render(out, experiment, {name: embed(figure) for name, figure in figures.items()})
    write_atomic(out / "report.html", lambda file: file.write_text(page, encoding="utf-8"))
    names = ", ".join(["report.html", *figures])
    return f"{out}: {names}: {plural(len(experiment.rows), 'run')}, {len(page) / 1e6:.1f} MB"


def _draw(experiment: Experiment) -> dict[str, Figure]:
    """Pictures by file name in the order shown, without those that would be empty."""
    draw: dict[str, Callable[[Experiment], Figure | None]] = {}
    if experiment.kind == "sweep":
        draw |= {"sweep.png": draw_sweep, "value-error.png": draw_value_error}
    draw["cost.png"] = draw_costs
    if len(experiment.variants) <= MAX_LINES:
        draw |= {"reward.png": draw_reward, "training.png": draw_training}
    return {n: figure for n in _CAPTIONS if n in draw and (figure := draw[n](experiment))}


def _render(out: Path, experiment: Experiment, pictures: Mapping[str, str]) -> str:
    title = "Comparison" if experiment.kind == "compare" else f"Sweep over {experiment.setting}"
    run_heads, runs = run_table(experiment, out)
    differing, shared = settings_tables(experiment)
    return render(
        "experiment.html",
        title=f"{title}: {out.resolve().name}",
        made=f"astarpo {experiment.package_version}, {time.strftime('%Y-%m-%d %H:%M')}",
        tables=make_tables(experiment) if experiment.rows else [],
        remarks=_remarks(experiment),
        pictures=[(*_CAPTIONS[name], picture) for name, picture in pictures.items()],
        run_heads=run_heads,
        runs=runs,
        variants=list(experiment.variants),
        differing=differing,
        shared=shared,
    )


def _remarks(experiment: Experiment) -> list[str]:
    remarks = ["Numbers are mean ± standard deviation over seeds."]
    if experiment.equal:
        remarks.append(f"Equal for all: {experiment.equal} (see astarpo compare --equal).")
    alone = [name for name, runs in experiment.variants.items() if len(runs) == 1]
    if alone:
        remarks.append(
            f"One seed only of {', '.join(alone)}: a difference may be one between seeds. "
            "Give more with --seeds."
        )
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
