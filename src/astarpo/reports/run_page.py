"""The page of one run or of several beside one another."""

from collections.abc import Mapping, Sequence
from typing import Any

from astarpo.reports.curves import SMOOTH, Columns
from astarpo.reports.overview import (
    ORIGINS,
    Run,
    curves_by_run,
    fact_rows,
    score_rows,
    setting_tables,
    stage1_groups,
)
from astarpo.reports.page import answer_browser, render, show
from astarpo.reports.plots import AXES, MEASURES, curve_pictures, key_picture, stage1_pictures


def render_runs(
    runs: Sequence[Run], answers: Mapping[str, Any], num_answers: int, made: str
) -> str:
    """The page as text.

    Args:
        runs: As `collect.collect_run` gives them.
        answers: Columns of the answers in the page, as `answers.columns` gives them.
        num_answers: How many answers there are, in the page or not.
        made: Who made the page and when.
    """
    names = [run["name"] for run in runs]
    curves = curves_by_run(runs)
    data = {
        "runs": names,
        "origins": ORIGINS,
        "num_answers": num_answers,
        "num_shown": len(answers["text"]),
    }
    many = len(runs) > 1
    return render(
        "page.html",
        title=" · ".join(names),
        made=made,
        runs=runs,
        remarks=[f"{run['name']}: {n}" if many else n for run in runs for n in run["notes"]],
        facts=fact_rows(runs),
        scores=score_rows(runs),
        curves=_curves(curves),
        keys={name: key_picture(number) for number, name in enumerate(curves)},
        axes={name: words.partition(" (")[0] for name, words in AXES.items()},
        smooth=SMOOTH,
        stage1=[(*group, stage1_pictures(group[1])) for group in stage1_groups(runs)],
        origins=ORIGINS,
        settings=setting_tables(runs),
        **answer_browser(data, answers),
    )


def _curves(runs: Mapping[str, Columns]) -> list[dict[str, Any]]:
    """The names of each measure, its picture against each axis, and each run's last value."""
    found = []
    for name, pictures in curve_pictures(runs).items():
        title, unit = MEASURES[name]
        ends = {run: (columns[name][0], columns[name][-1]) for run, columns in runs.items()}
        words = (f"{run} from {show(first)} to {show(last)}" for run, (first, last) in ends.items())
        found.append(
            {
                "title": title,
                "unit": unit,
                "words": f"{title}: {'; '.join(words)}",
                "last": {run: last for run, (_, last) in ends.items()},
                "pictures": pictures,
            }
        )
    return found
