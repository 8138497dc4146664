"""Settings of what helps beside runs: recipes, the environment, a talk with a policy, the hub."""

from pathlib import Path
from typing import Annotated, ClassVar

from astarpo.config.base import ComputeConfig, Config
from astarpo.config.setting import Group, declare


class RecipesConfig(Config):
    """List the shipped recipes, or print one."""

    takes_file: ClassVar[bool] = False

    name: Annotated[str | None, declare(Group.FILES, positional=True)] = None
    """A recipe to print, by its name or as a TOML file; else all are listed."""


class EnvConfig(Config):
    """Say what a bug report needs: versions, devices, disk, installed packages."""

    takes_file: ClassVar[bool] = False


class ChatConfig(ComputeConfig):
    """Ask the reference and the trained policy of a run, and see both answer, judged."""

    takes_file: ClassVar[bool] = False

    run: Annotated[Path, declare(Group.FILES, positional=True)]
    """Run directory of astarpo train or folder of astarpo run."""
    problem: Annotated[str | None, declare(Group.PROBLEMS)] = None
    """Ask one problem of the run's by its id, or random, and end; else what is typed, or comes line
    by line from standard input."""
    samples: Annotated[int, declare(Group.SAMPLING, ge=1)] = 1
    """Answers of each policy to a problem."""
    temperature: Annotated[float | None, declare(Group.SAMPLING, ge=0)] = None
    """Sampling temperature, 0 for greedy answers; else as in training."""
    max_new_tokens: Annotated[int | None, declare(Group.SAMPLING, ge=1)] = None
    """Longest answer, in tokens; it is cut there; else as in training."""
    seed: Annotated[int, declare(Group.SAMPLING, ge=0)] = 0
    """Seed of the sampled answers and of what random picks."""


class PushConfig(Config):
    """Put a run's model or a value table on the Hugging Face hub, with a card."""

    takes_file: ClassVar[bool] = False

    source: Annotated[Path, declare(Group.FILES, positional=True)]
    """A run (its trained model is sent), or a value table."""
    repo: Annotated[str, declare(Group.FILES, positional=True)]
    """Where to, such as my-name/my-model; it is made if it is not there."""
    private: Annotated[bool, declare(Group.FILES)] = False
    """Make the repository one that only its owner sees."""
