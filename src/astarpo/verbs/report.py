"""Reports of runs: one page that works offline, made from the run directories alone.

run directories -> collect.py (facts, changes, suites, stage1, learning) and answers.py
                -> run_page.py (headline, overview, plots) + assets/ -> report.html
                -> markdown.py                                       -> report.md, PNG

Experiments have a page of another kind: see `experiments/report/`.
"""

import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from astarpo.config import ReportConfig
from astarpo.reports.answers import (
    Source,
    choose_problems,
    columns,
    first_problems,
    shorten,
    with_texts,
)
from astarpo.reports.collect import clean, collect_runs, read_questions, run_names
from astarpo.reports.markdown import write_markdown
from astarpo.reports.page import plural
from astarpo.reports.run_page import render_runs
from astarpo.reports.stage1 import values_by_problem
from astarpo.rundir.reader import RunDirectory, open_run, state_of
from astarpo.runtime.files import write_atomic
from astarpo.runtime.outputs import check_file
from astarpo.runtime.remote import is_remote
from astarpo.runtime.stopping import StopSignal
from astarpo.runtime.version import package_version
from astarpo.types import UserError

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_RELOADS = 5.0
_MADE_FROM_OTHERS = {".html", ".md", ".png"}
# Making pages takes no more than this share of a core from the run that is watched.
_MAX_SHARE = 0.1

logger = logging.getLogger("astarpo")


def report(config: ReportConfig) -> str:
    """Writes the report of one or more runs, also of runs that are unfinished.

    The folder of an experiment (`astarpo compare`, `astarpo sweep`) gets the report and pictures of
    its own. With `watch`, returns when no run is under way any more, or a signal asks to stop.

    Returns:
        What was written last, in a line.

    Raises:
        UserError: A path is no run, or the report cannot be written.
    """
    out = prepare(config)
    if _of_experiment(config):
        # Brings torch, which reports of runs do without.
        from astarpo.experiments.report import write_experiment

        return write_experiment(config.runs[0])
    return _watch(config, out) if config.watch else _make(config, out)


def prepare(config: ReportConfig) -> Path:
    """The file of the page. A run's own report may be replaced, another file only if asked for."""
    out = config.out or config.runs[0] / "report.html"
    own = config.overwrite or config.out is None
    if not _of_experiment(config):
        for path in config.runs:
            open_run(path)
    elif len(config.runs) > 1 or config.out or config.markdown or config.watch:
        raise UserError(
            "an experiment (a folder with results.json) is reported alone and into its own folder, "
            "where its table.md also is: give no other run, no --out, no --markdown, no --watch"
        )
    check_file(out, overwrite=own, suffix=".html")
    if config.markdown:
        check_file(out.with_suffix(".md"), overwrite=own)
    return out


def _make(config: ReportConfig, out: Path, live_s: int | None = None) -> str:
    """Writes the page once; `live_s` as in `run_page.render_runs`."""
    runs = [open_run(path) for path in config.runs]
    collected, sources_by_run = collect_runs(runs, run_names(config.runs))
    sources = _distinct(runs, sources_by_run)
    answers = _answers(runs, sources, config.max_answers)
    num_all = sum(len(source.table) for source in sources)
    made = f"astarpo {package_version()}, {time.strftime('%Y-%m-%d %H:%M:%S')}"
    page = render_runs(collected, answers, num_all, made, live_s)
    write_atomic(out, lambda file: file.write_text(page, encoding="utf-8"))
    if config.markdown:
        write_markdown(out.with_suffix(".md"), collected)
    shown = f"{len(answers['text']):,} of {num_all:,} answers"
    return f"{out}: {plural(len(runs), 'run')}, {shown}, {len(page) / 1e6:.1f} MB"


def _watch(config: ReportConfig, out: Path) -> str:
    """Makes the page anew whenever a run has come further, for as long as one is under way.

    However the watching ends, the page that is left does not reload itself.
    """
    runs = [open_run(path) for path in config.runs]
    if not _any_running(runs):
        return f"{_make(config, out)}; no run is under way, so there is nothing to watch"
    before, pause_s, next_s = None, 0.0, 0.0
    logger.info(f"{out}: open it in a browser; it follows the run until that ends, or Ctrl-C")
    with StopSignal() as stop:
        while _any_running(runs) and not stop.requested:
            now, began_s = _written(runs), time.monotonic()
            if now != before and began_s >= next_s:
                _make(config, out, live_s=round(max(_SECONDS_BETWEEN_RELOADS, pause_s)))
                before, pause_s = now, (time.monotonic() - began_s) / _MAX_SHARE
                next_s = time.monotonic() + pause_s
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return _make(config, out)


def _any_running(runs: list[RunDirectory]) -> bool:
    return any(state_of(run, run.metrics()).word == "running" for run in runs)


def _written(runs: list[RunDirectory]) -> set[tuple[Path, int]]:
    """The files and folders that a page is made from, each with the time of its last change."""
    parts = [(run.path, run.training, run.training / "samples", run.values) for run in runs]
    folders = {folder for part in parts for folder in part if folder and not is_remote(folder)}
    found = set()
    for file in {file for folder in folders for file in folder.glob("[!.]*")}:
        if file.suffix not in _MADE_FROM_OTHERS:
            with suppress(OSError):  # It was replaced just now: it is seen at the next look.
                found.add((file, file.stat().st_mtime_ns))
    return found


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
    shown = with_texts(sources, first_problems(sources, max_answers))
    kept = choose_problems(shown, max_answers)
    answers = columns(shown, kept)
    problems = read_questions(runs, kept)
    known = [problems.get(name) for name in answers["problems"]]
    answers["questions"] = [
        shorten("\n\n".join(part["content"] for part in problem.prompt)) if problem else None
        for problem in known
    ]
    values: dict[str, list[float]] = {}
    for source in sources:
        if source.kind == "stage1":  # A problem has its values from the first run that has it.
            config = runs[source.run].config
            values = values_by_problem(source.table, config, answers["problems"]) | values
    answers["values"] = [values.get(name) for name in answers["problems"]]
    answers["truths"] = [
        truth if truth is not None or problem is None else problem.ground_truth
        for truth, problem in zip(answers["truths"], known, strict=True)
    ]
    return clean(answers)


def preview(config: ReportConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    return [f"would be written: {prepare(config)}"]
