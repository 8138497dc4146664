"""The verb `sweep`: one setting over its values and seeds, in one table."""

from functools import partial
from pathlib import Path
from typing import Any

from astarpo.config import SweepConfig
from astarpo.experiments.plan import Experiment
from astarpo.experiments.preview import preview as preview_experiment
from astarpo.experiments.request import plan_experiment, prepare_experiment, swept_variants
from astarpo.experiments.runner import run_experiment


def sweep(config: SweepConfig) -> dict[str, Any]:
    """Trains with every value of a setting and every seed; see `experiments/`.

    For each seed, all values of `samples` use the first samples of the same value table.

    Returns:
        What `results.json` says of the finished runs.

    Raises:
        UserError: A setting or the recipe is wrong, a stage cannot do its work, or the folder holds
            another experiment.
    """
    return run_experiment(prepare(config))


def prepare(config: SweepConfig) -> Experiment:
    """The experiment, checked as far as possible before any of it is done."""
    return prepare_experiment(plan_sweep(config))


def preview(config: SweepConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    return preview_experiment(prepare(config))


def plan_sweep(config: SweepConfig) -> Experiment:
    """The experiment that a sweep asks for, with its settings checked."""
    return plan_experiment(
        config,
        partial(swept_variants, config.setting, config.over),
        kind="sweep",
        out=config.out or Path("runs") / f"sweep-{config.setting}",
        setting=config.setting,
    )
