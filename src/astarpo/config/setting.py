"""How a setting is declared: once, at its field, with everything that the package knows of it.

    lr: Annotated[float, declare(Group.SCHEDULE, gt=0, on_resume="steering")] = 1e-6
    '''Peak learning rate.'''

The string below a field is its help: sentences that a stranger understands, with units. The command
line, resuming and experiments read what is declared here; they keep no lists of names.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypedDict, Unpack, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

AlgorithmName = Literal["astar_po", "grpo", "ppo", "rebel", "rloo", "spo"]

ALGORITHM_NAMES: tuple[AlgorithmName, ...] = get_args(AlgorithmName)


class Group(StrEnum):
    """Headings under which `--help` lists settings, in their order."""

    FILES = "inputs and output"
    PROBLEMS = "choice of problems"
    OWN = "problems of your own"
    SHAPE = "shape of the model"
    COMPARISON = "what is compared"
    ALGORITHM = "algorithm"
    VALUES = "value table"
    SAMPLING = "prompts and sampling"
    SUITE = "suite of benchmarks"
    SCHEDULE = "length of training and learning rate"
    BATCHES = "batches, memory and device"
    RANKS = "several processes, by torchrun"
    EVALUATION = "evaluation while training"
    LOGS = "checkpoints and logs"
    GRADING = "grading"
    COSTS = "lengths, speed and price"


OnResume = Literal["fixed", "free", "steering", "length"]
InExperiment = Literal["swept", "shared", "variant", "run"]


@dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its type, bounds, default and help.

    Attributes:
        group: Its heading in `--help`.
        readers: Algorithms that read it; given to another one it is refused.
        on_resume: Whether a resumed run may have another value. `fixed`: no. `free`: yes, it
            changes how far or how fast, not what is computed. `steering`: yes, since it helps a run
            that goes wrong; it is said and recorded. `length`: `free` where the learning rate is
            constant; `steering` where its schedule ends with the run.
        in_experiment: What comparisons and sweeps do with it. `swept`: a sweep may go over it.
            `shared`: all runs have the recipe's value. `variant`, `run`: the experiment sets it for
            each variant (by its algorithm or data), for each run (by its folder or seed).
        sweep_values: What a sweep goes over unless the user says.
        positional: Whether the command line takes it by position, as in `astarpo data gsm8k`.
    """

    group: Group
    readers: tuple[AlgorithmName, ...]
    on_resume: OnResume
    in_experiment: InExperiment
    sweep_values: str | None
    positional: bool


class Bounds(TypedDict, total=False):
    """Bounds of a setting, as pydantic's `Field` takes them."""

    gt: float
    ge: float
    lt: float
    le: float
    min_length: int
    allow_inf_nan: bool


def declare(
    group: Group,
    *,
    readers: tuple[AlgorithmName, ...] = ALGORITHM_NAMES,
    on_resume: OnResume = "fixed",
    in_experiment: InExperiment = "swept",
    sweep_values: str | None = None,
    positional: bool = False,
    **bounds: Unpack[Bounds],
) -> FieldInfo:
    """Declares a setting, inside the `Annotated` of its field; see `Setting` and `Bounds`."""
    info: FieldInfo = Field(**bounds)
    info.metadata.append(
        Setting(group, readers, on_resume, in_experiment, sweep_values, positional)
    )
    return info


def setting_of(field: FieldInfo) -> Setting:
    """What a field of a config was declared with."""
    return next(item for item in field.metadata if isinstance(item, Setting))
