"""Reports of runs: one page that works offline, made from the run directories alone.

run directories -> collect.py, stage1.py, answers.py -> run_page.py + assets/ -> report.html
                                                     -> markdown.py           -> report.md, PNG

Experiments have a page of another kind: see `experiments/report/`.
"""

import time
from pathlib import Path
from typing import Any

from astarpo.config import ReportConfig
from astarpo.reports.answers import Source, choose_problems, columns, shorten
from astarpo.reports.collect import clean, collect_runs, read_questions, run_names
from astarpo.reports.markdown import write_markdown
from astarpo.reports.page import plural
from astarpo.reports.run_page import render_runs
from astarpo.reports.stage1 import values_by_problem
from astarpo.rundir.reader import RunDirectory, open_run
from astarpo.runtime.files import write_atomic
from astarpo.runtime.outputs import check_file
from astarpo.runtime.version import package_version
from astarpo.types import UserError


def report(config: ReportConfig) -> str:
    """Writes the report of one or more runs, also of runs that are unfinished.

    The folder of an experiment (`astarpo compare`, `astarpo sweep`) gets the report and pictures of
    its own.

    Returns:
        What was written, in a line.

    Raises:
        UserError: A path is no run, or the report cannot be written.
    """
    out = prepare(config)
    if _of_experiment(config):
        # Brings torch, which reports of runs do without.
        from astarpo.experiments.report import write_experiment

        return write_experiment(config.runs[0])
    runs = [open_run(path) for path in config.runs]
    collected, sources_by_run = collect_runs(runs, run_names(config.runs))
    sources = _distinct(runs, sources_by_run)
    answers = _answers(runs, sources, config.max_answers)
    num_all = sum(len(source.table) for source in sources)
    made = f"astarpo {package_version()}, {time.strftime('%Y-%m-%d %H:%M')}"
    page = render_runs(collected, answers, num_all, made)
    write_atomic(out, lambda file: file.write_text(page, encoding="utf-8"))
    if config.markdown:
        write_markdown(out.with_suffix(".md"), collected)
    shown = f"{len(answers['text']):,} of {num_all:,} answers"
    return f"{out}: {plural(len(runs), 'run')}, {shown}, {len(page) / 1e6:.1f} MB"


def prepare(config: ReportConfig) -> Path:
    """The file of the page. A run's own report may be replaced, another file only if asked for."""
    out = config.out or config.runs[0] / "report.html"
    own = config.overwrite or config.out is None
    if not _of_experiment(config):
        for path in config.runs:
            open_run(path)
    elif len(config.runs) > 1 or config.out or config.markdown:
        raise UserError(
            "an experiment (a folder with results.json) is reported alone and into its own folder, "
            "where its table.md also is: give no other run, no --out, no --markdown"
        )
    check_file(out, overwrite=own, suffix=".html")
    if config.markdown:
        check_file(out.with_suffix(".md"), overwrite=own)
    return out


def _of_experiment(config: ReportConfig) -> bool:
    return any((path / "results.json").is_file() for path in config.runs)


def _distinct(runs: list[RunDirectory], sources_by_run: list[list[Source]]) -> list[Source]:
    """All sources, without repeating a value table that several runs share."""
    seen: set[Path] = set()
    kept = []
    for run, sources in zip(runs, sources_by_run, strict=True):
        table = run.values.resolve() if run.values else None
        kept += [s for s in sources if s.kind != "stage1" or table not in seen]
        seen |= {table} if table else set()
    return kept


def _answers(runs: list[RunDirectory], sources: list[Source], max_answers: int) -> dict[str, Any]:
    """Columns of the answers in the page, with the questions and values of their problems."""
    kept = choose_problems(sources, max_answers)
    answers = columns(sources, kept)
    problems = read_questions(runs, kept)
    known = [problems.get(name) for name in answers["problems"]]
    answers["questions"] = [
        shorten("\n\n".join(part["content"] for part in problem.prompt)) if problem else None
        for problem in known
    ]
    values: dict[str, list[float]] = {}
    for source in sources:
        if source.kind == "stage1":  # A problem has its values from the first run that has it.
            values = values_by_problem(source.table, runs[source.run].config) | values
    answers["values"] = [values.get(name) for name in answers["problems"]]
    answers["truths"] = [
        truth if truth is not None or problem is None else problem.ground_truth
        for truth, problem in zip(answers["truths"], known, strict=True)
    ]
    return clean(answers)


def preview(config: ReportConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    return [f"would be written: {prepare(config)}"]
