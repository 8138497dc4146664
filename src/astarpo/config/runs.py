"""Settings of what makes, compares and shows whole runs."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from astarpo.config.base import Config, RewardReference


class DemoConfig(Config):
    """Both stages on a small model of its own, in minutes on a laptop."""

    out: Path = Field(Path("runs/demo"), description="folder for everything")
    seed: int = Field(0, ge=0, description="of the model, the data and the samples")


class RunConfig(Config):
    """All stages of a recipe: data, estimate, train, evaluate before and after."""

    recipe: str = Field(description="a TOML file, or the name of a shipped recipe")
    out: Path = Field(description="folder for everything; run again to go on where it stopped")
    model: str | None = Field(None, description="instead of the recipe's")
    source: str | None = Field(None, description="training problems, instead of the recipe's")
    test_source: str | None = Field(None, description="test problems, instead of the recipe's")
    seed: int | None = Field(
        None, ge=0, description="of data, samples and order; without it the recipe's, or 0"
    )
    reward: RewardReference = Field(
        None, description="the recipe's own function that judges answers, named to let it run"
    )


class ExperimentConfig(Config):
    """What comparisons and sweeps share."""

    recipe: str = Field("compare", description="a TOML file, or the name of a shipped recipe")
    model: str | None = Field(
        None, description="instead of the recipe's; without either, the demo's policy"
    )
    reward: RewardReference = Field(
        None, description="the recipe's own function that judges answers, named to let it run"
    )
    seeds: str = Field("0,1,2", description="of stage 1, data order and samples: one run for each")
    steps: int | None = Field(None, ge=1, description="of every run, instead of the recipe's")
    target: float | None = Field(
        None,
        description="held-out reward that time and tokens are measured to; without it the largest "
        "multiple of 0.05 that every run reaches which did not collapse",
    )


class CompareConfig(ExperimentConfig):
    """Algorithms against each other over seeds, on equal terms; goes on where it stopped."""

    out: Path = Field(Path("runs/compare"), description="folder for everything")
    algorithms: str = Field(
        "astar_po,grpo,ppo,rebel,rloo",
        description="which, in the order of the table: names, or variants of the recipe",
    )
    equal: Literal["prompts", "samples", "seconds"] = Field(
        "prompts",
        description="what all have the same of: prompts a step, samples a step, or seconds in all, "
        "stage 1 included",
    )
    seconds: float | None = Field(
        None, gt=0, description="of each run with --equal seconds, stage 1 included"
    )


class SweepConfig(ExperimentConfig):
    """One setting over its values and seeds; goes on where it stopped."""

    setting: str = Field(
        description="samples (N, all from one value table), beta1, beta2, filter, any other "
        "setting of train, or size (difficulty of made problems)"
    )
    over: str | None = Field(
        None, description="its values, 1,2,4 say; samples, beta1, beta2 and filter have their own"
    )
    out: Path | None = Field(None, description="folder for everything; else runs/sweep-SETTING")
    algorithms: str = Field("astar_po", description="which: one or several, or recipe's variants")
    equal: Literal["prompts", "samples"] = Field(
        "prompts", description="what several have the same of in a step"
    )


class ReportConfig(Config):
    """Show runs as one page that works offline: scores, curves, stage 1, sampled answers."""

    runs: list[Path] = Field(
        min_length=1,
        description="run directories of astarpo train, folders of astarpo run; or one folder of "
        "astarpo compare or sweep",
    )
    out: Path | None = Field(
        None, description="HTML file to write; without it report.html in the first run"
    )
    max_answers: int = Field(
        50_000, ge=0, description="answers in the page; beyond it whole problems are left out"
    )
    overwrite: bool = Field(False, description="replace what is at --out already")
    markdown: bool = Field(False, description="write report.md and PNG pictures beside it too")


class RunsConfig(Config):
    """List the runs below a folder: state, step, reward, time."""

    dir: Path = Field(Path("runs"), description="directory to look through")
