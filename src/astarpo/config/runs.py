"""Settings of what makes, compares and shows whole runs."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from astarpo.config.base import Config, Overwrite, RewardReference
from astarpo.config.setting import Group, declare

Recipe = Annotated[str, declare(Group.FILES, positional=True)]
RecipeReward = Annotated[RewardReference, declare(Group.GRADING)]


class DemoConfig(Config):
    """Run both stages on a small model that is shipped, in minutes on a laptop."""

    takes_file: ClassVar[bool] = False

    out: Annotated[Path, declare(Group.FILES)] = Path("runs/demo")
    """Folder for everything."""
    seed: Annotated[int, declare(Group.FILES, ge=0)] = 0
    """Seed of the problems, the samples and the data order."""


class RunConfig(Config):
    """Run all stages of a recipe: data, estimate, train, evaluate before and after."""

    takes_file: ClassVar[bool] = False

    recipe: Recipe
    """A TOML file, or the name of a shipped recipe."""
    out: Annotated[Path, declare(Group.FILES)]
    """Folder for everything; run again to go on where it stopped."""
    model: Annotated[str | None, declare(Group.FILES)] = None
    """Policy to train, a folder or a hub name; else the recipe's."""
    source: Annotated[str | None, declare(Group.FILES)] = None
    """Training problems, a file or a hub name; else the recipe's."""
    test_source: Annotated[str | None, declare(Group.FILES)] = None
    """Test problems, a file or a hub name; else the recipe's."""
    seed: Annotated[int | None, declare(Group.FILES, ge=0)] = None
    """Seed of the problems, the samples and the data order; else the recipe's, or 0."""
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, declare(Group.BATCHES)] = None
    """Where models run; auto takes the GPU where there is one; else the recipe's, or auto."""
    set: Annotated[tuple[str, ...], declare(Group.FILES)] = ()
    """Change a setting of the recipe, as TABLE.SETTING=VALUE (train.lr=2e-6, data.limit=64); may be
    given several times."""
    trust_reward: RecipeReward = None
    """Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the recipe names as its
    judge: it runs only if you name it here."""


class ExperimentConfig(Config):
    """What comparisons and sweeps share."""

    takes_file: ClassVar[bool] = False

    recipe: Recipe = "compare"
    """A TOML file, or the name of a shipped recipe."""
    model: Annotated[str | None, declare(Group.FILES)] = None
    """Policy to train, a folder or a hub name; else the recipe's, or the demo's."""
    set: Annotated[tuple[str, ...], declare(Group.FILES)] = ()
    """Change a setting of the recipe, as TABLE.SETTING=VALUE (data.task=countdown,
    variants.NAME.lr=2e-6); may be given several times."""
    trust_reward: RecipeReward = None
    """Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the recipe names as its
    judge: it runs only if you name it here."""
    seeds: Annotated[str, declare(Group.COMPARISON)] = "0,1,2"
    """Seeds of stage 1, data order and samples; each variant is trained once with each."""
    steps: Annotated[int | None, declare(Group.COMPARISON, ge=1)] = None
    """Steps of every run; else the recipe's."""
    target: Annotated[float | None, declare(Group.COMPARISON)] = None
    """Held-out reward up to which seconds and tokens are counted; else the largest multiple of 0.05
    that every run reached which did not collapse."""
    total_samples: Annotated[int | None, declare(Group.COMPARISON, ge=1)] = None
    """Samples of each run with --equal total, stage 1 included."""
    validation: Annotated[bool, declare(Group.COMPARISON)] = False
    """Score on a share of the training problems that is held out, and not on the test problems: for
    choosing settings."""


class CompareConfig(ExperimentConfig):
    """Compare algorithms over seeds, on equal terms; run again, it goes on where it stopped."""

    out: Annotated[Path, declare(Group.FILES)] = Path("runs/compare")
    """Folder for everything."""
    algorithms: Annotated[str, declare(Group.COMPARISON)] = "astar_po,grpo,ppo,rebel,rloo"
    """Algorithms, or variants of the recipe, in the order of the table."""
    equal: Annotated[
        Literal["prompts", "samples", "total", "seconds"], declare(Group.COMPARISON)
    ] = "prompts"
    """What every algorithm gets the same amount of: prompts in a step; samples in a step; samples
    in a step and in total, stage 1 included; or seconds, stage 1 included."""
    seconds: Annotated[float | None, declare(Group.COMPARISON, gt=0)] = None
    """Length of each run with --equal seconds, stage 1 included."""


class SweepConfig(ExperimentConfig):
    """Vary one setting, over seeds; run again, it goes on where it stopped."""

    setting: Annotated[str, declare(Group.COMPARISON, positional=True)]
    """What is varied: samples (N, all from one value table), beta1, beta2, filter, another setting
    of train, or size (difficulty of made problems)."""
    over: Annotated[str | None, declare(Group.COMPARISON)] = None
    """Its values, such as 1,2,4; samples, beta1, beta2 and filter have values of their own."""
    out: Annotated[Path | None, declare(Group.FILES)] = None
    """Folder for everything; else runs/sweep-SETTING."""
    algorithms: Annotated[str, declare(Group.COMPARISON)] = "astar_po"
    """Algorithms, or variants of the recipe, one or several."""
    equal: Annotated[Literal["prompts", "samples", "total"], declare(Group.COMPARISON)] = "prompts"
    """What several algorithms get the same number of: prompts in a step; samples in a step; or
    samples in a step and in total, stage 1 included."""


class ReportConfig(Config):
    """Write a page about runs that works offline: scores, curves, stage 1, sampled answers."""

    takes_file: ClassVar[bool] = False

    runs: Annotated[list[Path], declare(Group.FILES, min_length=1, positional=True)]
    """Run directories of astarpo train or folders of astarpo run, one or several; or one folder of
    astarpo compare or astarpo sweep."""
    out: Annotated[Path | None, declare(Group.FILES)] = None
    """HTML file to write; else report.html in the first run."""
    max_answers: Annotated[int, declare(Group.FILES, ge=0)] = 50_000
    """Most answers in the page; where there are more, whole problems are left out."""
    overwrite: Overwrite = False
    """Replace the file at --out if there is one."""
    markdown: Annotated[bool, declare(Group.FILES)] = False
    """Write report.md with PNG pictures beside the page too."""
    watch: Annotated[bool, declare(Group.FILES)] = False
    """Make the page anew as its runs go on, until the last one ends; the page reloads itself."""


class RunsConfig(Config):
    """List the runs below a folder: state, step, reward, time."""

    takes_file: ClassVar[bool] = False

    dir: Annotated[Path, declare(Group.FILES, positional=True)] = Path("runs")
    """Folder to look through."""
