"""The page of one run or of several beside one another."""

from collections.abc import Mapping, Sequence
from typing import Any

from astarpo.reports.changes import verdict_of
from astarpo.reports.curves import SMOOTH, Columns
from astarpo.reports.headline import caution, headline
from astarpo.reports.learning_plots import learning_pictures
from astarpo.reports.overview import (
    ORIGINS,
    SHORT_ORIGINS,
    Run,
    curves_by_run,
    fact_rows,
    score_rows,
    setting_tables,
    stage1_groups,
)
from astarpo.reports.page import answer_browser, render, show
from astarpo.reports.plots import (
    AXES,
    HELD_OUT,
    MEASURES,
    curve_pictures,
    held_out_pictures,
    key_picture,
    stage1_pictures,
)


def render_runs(
    runs: Sequence[Run],
    answers: Mapping[str, Any],
    num_answers: int,
    made: str,
    live_s: int | None = None,
) -> str:
    """The page as text.

    Args:
        runs: As `collect.collect_run` gives them.
        answers: Columns of the answers in the page, as `answers.columns` gives them.
        num_answers: How many answers there are, in the page or not.
        made: Who made the page and when.
        live_s: Seconds after which the page reloads itself; None for one that stays as it is.
    """
    names = [run["name"] for run in runs]
    curves = curves_by_run(runs)
    data = {
        "runs": names,
        "origins": ORIGINS,
        "short": SHORT_ORIGINS,
        "num_answers": num_answers,
        "num_shown": len(answers["text"]),
    }
    many = len(runs) > 1
    return render(
        "page.html",
        title=" · ".join(names),
        made=made,
        live=live_s,
        headlines=[(run["name"], headline(run)) for run in runs],
        caution=caution(runs),
        runs=runs,
        remarks=[f"{run['name']}: {n}" if many else n for run in runs for n in run["notes"]],
        facts=fact_rows(runs),
        scores=score_rows(runs),
        suites=[(run["name"], suite) for run in runs for suite in _suites(run)],
        curves=_held_out(runs) + _curves(curves),
        keys={name: key_picture(number) for number, name in enumerate(curves)},
        axes={name: words.partition(" (")[0] for name, words in AXES.items()},
        smooth=SMOOTH,
        stage1=[(*group, stage1_pictures(group[1])) for group in stage1_groups(runs)],
        learning=_learning(runs),
        origins=ORIGINS,
        settings=setting_tables(runs),
        **answer_browser(data, answers),
    )


def _suites(run: Run) -> list[dict[str, Any]]:
    """The run's suites, each row with its verdict."""
    return [
        suite | {"rows": [row | {"verdict": verdict_of(row["change"])} for row in suite["rows"]]}
        for suite in run["suites"]
    ]


def _learning(runs: Sequence[Run]) -> list[tuple[str, dict[str, tuple[str, str]]]]:
    """Pictures by problem of each run that has any."""
    found = [(run["name"], learning_pictures(run["learning"])) for run in runs]
    return [(name, pictures) for name, pictures in found if pictures]


def _held_out(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The held-out reward as `_curves` gives measures; nothing where no run was evaluated twice."""
    found = {run["name"]: run["held_out"] for run in runs if run["held_out"]["step"]}
    pictures = held_out_pictures(found)
    return [_curve(HELD_OUT, "", pictures, found, "reward")] if pictures else []


def _curves(runs: Mapping[str, Columns]) -> list[dict[str, Any]]:
    """The names of each measure, its picture against each axis, and each run's last value."""
    return [
        _curve(*MEASURES[name], pictures, runs, name)
        for name, pictures in curve_pictures(runs).items()
    ]


def _curve(
    title: str, unit: str, pictures: Mapping[str, str], runs: Mapping[str, Columns], name: str
) -> dict[str, Any]:
    ends = {run: (columns[name][0], columns[name][-1]) for run, columns in runs.items()}
    words = (f"{run} from {show(first)} to {show(last)}" for run, (first, last) in ends.items())
    return {
        "title": title,
        "unit": unit,
        "words": f"{title}: {'; '.join(words)}",
        "last": {run: last for run, (_, last) in ends.items()},
        "pictures": pictures,
    }
