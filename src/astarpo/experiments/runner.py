"""Runs an experiment: first the missing runs, then the tables and the page of all of them."""

import logging
from typing import Any

from astarpo.experiments.plan import Experiment
from astarpo.experiments.records import write_results
from astarpo.experiments.report import write_experiment
from astarpo.experiments.request import claim
from astarpo.experiments.results import collect_results
from astarpo.experiments.stages import StoppedError, Worker
from astarpo.experiments.table import render_tables
from astarpo.runtime.files import write_atomic
from astarpo.runtime.locks import folder_lock

logger = logging.getLogger("astarpo")


def run_experiment(experiment: Experiment) -> dict[str, Any]:
    """Does what is missing and writes `results.json` and `table.md` after every run.

    Finished runs of earlier calls for the same folder, with other variants or seeds, stay in the
    results.

    Returns:
        What `results.json` says; with `completed` False where a signal stopped it.
    """
    # A training process that outlives its killed experiment still holds the lock; wait for it.
    with folder_lock(experiment.out, wait=True) as lock:
        whole = claim(experiment)
        worker = Worker(experiment, lock)
        worker.prepare()
        runs = list(experiment.runs())
        try:
            for i, (variant, seed) in enumerate(runs, start=1):
                logger.info(f"== {variant.name}, seed {seed}: run {i} of {len(runs)}")
                worker.finish_run(variant, seed)
                _write(whole)
        except StoppedError:
            logger.warning("stopped; the same call goes on")
            return _write(whole) | {"completed": False}
        results = _write(whole)
        logger.info((experiment.out / "table.md").read_text(encoding="utf-8"))
        logger.info(write_experiment(experiment.out))
    return results


def _write(experiment: Experiment) -> dict[str, Any]:
    """Writes the results of the finished runs; returns what `results.json` says."""
    results = collect_results(experiment)
    document = write_results(experiment.out, results)
    text = render_tables(results)
    write_atomic(experiment.out / "table.md", lambda file: file.write_text(text, encoding="utf-8"))
    return document
