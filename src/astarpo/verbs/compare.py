"""The verb `compare`: algorithms against each other over seeds, on equal terms, in one table."""

from typing import Any

from astarpo.config import CompareConfig
from astarpo.experiments.plan import Experiment
from astarpo.experiments.preview import preview as preview_experiment
from astarpo.experiments.request import plan_experiment, prepare_experiment
from astarpo.experiments.runner import run_experiment
from astarpo.types import UserError


def compare(config: CompareConfig) -> dict[str, Any]:
    """Trains every algorithm with every seed and measures cost and result; see `experiments/`.

    Returns:
        What `results.json` says of the finished runs.

    Raises:
        UserError: A setting or the recipe is wrong, a stage cannot do its work, or the folder holds
            another experiment.
    """
    return run_experiment(prepare(config))


def prepare(config: CompareConfig) -> Experiment:
    """The experiment, checked as far as possible before any of it is done."""
    return prepare_experiment(plan_comparison(config))


def preview(config: CompareConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    return preview_experiment(prepare(config))


def plan_comparison(config: CompareConfig) -> Experiment:
    """The experiment that a comparison asks for, with its settings checked."""
    if (config.equal == "seconds") != (config.seconds is not None):
        raise UserError("equal seconds: --equal seconds and --seconds S go together")
    return plan_experiment(config, kind="compare", out=config.out, seconds=config.seconds)
