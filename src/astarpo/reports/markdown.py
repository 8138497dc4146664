"""A report as Markdown with PNG pictures beside it, for papers and terminals. No model's text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from astarpo.reports.headline import caution, headline
from astarpo.reports.overview import Run, curves_by_run, fact_rows, score_rows
from astarpo.reports.page import show
from astarpo.reports.plots import plot_runs
from astarpo.runtime.files import write_atomic
from astarpo.runtime.tables import escape_markdown as _cell
from astarpo.runtime.tables import markdown_table
from astarpo.values.summary import count_words


def write_markdown(path: Path, runs: Sequence[Run]) -> None:
    """Writes the Markdown and, where there are training steps, `<name>-curves.png`."""
    lines = [f"# {_cell(' · '.join(run['name'] for run in runs))}", ""]
    lines += [f"- {_cell(_told(run))}" for run in runs]
    if words := caution(runs):
        lines.append(f"- {_cell(words)}")
    lines.append("")
    facts = [[label, *map(show, values)] for label, *values in fact_rows(runs)]
    lines += _table(["", *(run["name"] for run in runs)], facts)
    lines += [f"- {_cell(run['name'])}: {_cell(note)}" for run in runs for note in run["notes"]]
    lines += ["", "## Reference against trained", "", *_score_table(runs)]
    if curves := curves_by_run(runs):
        picture = path.with_name(f"{path.stem}-curves.png")
        plot_runs(picture, curves)
        lines += ["", "## Training", "", f"![curves](<{picture.name}>)"]
    lines += ["", "## Stage 1", "", *(_stage1(run) for run in runs)]
    lines += ["", "## Verdicts", "", *_verdict_table(runs)]
    data = ("\n".join(lines) + "\n").encode("utf-8", "replace")
    write_atomic(path, lambda file: file.write_bytes(data))


def _told(run: Run) -> str:
    """The run's headline, with what is beyond chance."""
    claims = [
        f"{claim.words}, {claim.verdict} beyond chance" if claim.verdict else claim.words
        for claim in headline(run)
    ]
    return f"{run['name']}: {'; '.join(claims)}"


def _stage1(run: Run) -> str:
    if not (found := run["stage1"]):
        return f"- {_cell(run['name'])}: no value table to be found"
    counts = count_words(found["num_samples"])
    return (
        f"- {_cell(run['name'])}: {found['num_problems']} problems, {counts} samples each; mean "
        f"reward {found['mean_reward']:.3f}; all wrong {found['all_wrong']:.1%}, all right "
        f"{found['all_right']:.1%} of problems; {'; '.join(found['advice'])}"
    )


def _score_table(runs: Sequence[Run]) -> list[str]:
    rows = [
        [row.run, row.score, *map(_interval, (row.reference, row.trained, row.change))]
        for row in score_rows(runs)
    ]
    if not rows:
        return ["No evaluation here."]
    caption = "95% intervals over problems; the change is of pairs, problem by problem."
    return [*_table(["run", "score", "reference", "trained", "change"], rows), caption]


def _verdict_table(runs: Sequence[Run]) -> list[str]:
    rows = [
        [run["name"], kind, *map(str, counts.values())]
        for run in runs
        for kind, counts in run["verdicts"].items()
    ]
    names = next((list(counts) for run in runs for counts in run["verdicts"].values()), [])
    return _table(["run", "answers", *names], rows) if rows else ["No answers here."]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [*markdown_table([heads, *rows]), ""]


def _interval(score: Mapping[str, float] | None) -> str:
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**score) if score else "-"
