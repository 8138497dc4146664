"""The verb `demo`: both stages on a small policy, in minutes on a laptop.

Everything is in the shipped recipe `recipes/demo.toml`; the policy it starts from is shipped too.
"""

from typing import Any

from astarpo.config import DemoConfig, RunConfig
from astarpo.verbs.run import prepare as prepare_run
from astarpo.verbs.run import preview as preview_run
from astarpo.verbs.run import run


def demo(config: DemoConfig) -> dict[str, Any]:
    """Estimates V*, trains with one sample a prompt and evaluates before and after.

    Returns:
        What `summary.json` in `config.out` says; see `run.run_document`.
    """
    return run(recipe_of(config))


def prepare(config: DemoConfig) -> dict[str, Any]:
    """The config of every stage; see `run.prepare`."""
    return prepare_run(recipe_of(config))


def preview(config: DemoConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    return preview_run(recipe_of(config))


def recipe_of(config: DemoConfig) -> RunConfig:
    """The settings of `run` that the demo stands for."""
    return RunConfig(recipe="demo", out=config.out, seed=config.seed)
