"""Settings of the verb `plan`, and of the machines that a recipe is for."""

import warnings
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from astarpo.config.base import Config
from astarpo.config.runs import Recipe, RecipeReward
from astarpo.config.setting import Group, declare


class ResourcesConfig(Config):
    """The machines that a recipe is for: what its table `[resources]` says."""

    nodes: Annotated[int, declare(Group.BATCHES, ge=1)] = 1
    """Machines that train together; else the recipe's, or 1."""
    devices: Annotated[int, declare(Group.BATCHES, ge=1)] = 1
    """GPUs of each machine; else the recipe's, or 1."""
    card: Annotated[str | None, declare(Group.BATCHES)] = None
    """The GPU: a name, such as H100, or its memory in GiB, such as 80; cpu for none; else the
    recipe's, or what this machine has."""
    engine: Annotated[Literal["auto", "vllm", "hf", "generate"] | None, declare(Group.SAMPLING)] = (
        None
    )
    """What samples responses; else the recipe's, or auto."""
    tensor_parallel: Annotated[int, declare(Group.SAMPLING, ge=1)] = 1
    """GPUs that one engine is spread over; else the recipe's, or 1."""
    engine_memory: Annotated[float | None, declare(Group.BATCHES, gt=0, lt=1)] = None
    """Share of a GPU's memory that vllm takes; else the recipe's, or .9, and .5 in training."""


with warnings.catch_warnings():
    # A setting is called json as its flag is, and so is a method of pydantic's that nobody calls.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class PlanConfig(ResourcesConfig):
        """Work out what a recipe would do, need and cost, and what does not fit; runs nothing."""

        takes_file: ClassVar[bool] = False

        recipe: Recipe
        """A TOML file, or the name of a shipped recipe."""
        model: Annotated[str | None, declare(Group.FILES)] = None
        """Policy to train, a folder (config.json is enough) or a hub name; else the recipe's."""
        source: Annotated[str | None, declare(Group.FILES)] = None
        """Training problems, a file or a hub name; else the recipe's."""
        test_source: Annotated[str | None, declare(Group.FILES)] = None
        """Test problems, a file or a hub name; else the recipe's."""
        set: Annotated[tuple[str, ...], declare(Group.FILES)] = ()
        """Change a setting of the recipe, as TABLE.SETTING=VALUE (train.lr=2e-6, data.limit=64);
        may be given several times."""
        trust_reward: RecipeReward = None
        """Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the recipe names as its
        judge: it is imported only if you name it here."""
        json: Annotated[bool, declare(Group.FILES)] = False  # pyrefly: ignore
        """Print the plan as JSON, for programs."""
        num_problems: Annotated[int | None, declare(Group.PROBLEMS, ge=1)] = None
        """Take so many training problems for granted instead of reading them; every prompt then
        counts as one of max_prompt_tokens."""
        answer_tokens: Annotated[float | None, declare(Group.COSTS, gt=0)] = None
        """Tokens of an answer in the mean, for samples, hours and storage; else as in --rates, or
        a quarter of max_new_tokens. Memory is always planned for the longest."""
        rates: Annotated[Path | None, declare(Group.COSTS)] = None
        """Measured speed: a run of astarpo run or astarpo train, or the JSON file of
        benchmarks/gpu.py; else what the card could do is estimated."""
        sample_rate: Annotated[float | None, declare(Group.COSTS, gt=0)] = None
        """Tokens a second that one device samples; else from --rates, or estimated."""
        update_rate: Annotated[float | None, declare(Group.COSTS, gt=0)] = None
        """Tokens a second, prompts included, that one device learns from; else from --rates, or
        estimated."""
        price: Annotated[float | None, declare(Group.COSTS, gt=0)] = None
        """Price of one device for an hour, for the costs."""
