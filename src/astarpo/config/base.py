"""What settings share: the rules that all obey, prompts, compute, what judges responses."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from astarpo.config.setting import Group, declare
from astarpo.runtime.remote import as_path, is_url
from astarpo.types import UserError


class Config(BaseModel):
    """Base of all settings: frozen, unknown names refused.

    Attributes:
        takes_file: Whether the verb reads settings from `--config FILE` too.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        ser_json_inf_nan="strings",
        use_attribute_docstrings=True,
        defer_build=True,  # `--help` needs no validators, and a verb only its own
    )

    takes_file: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _is_local(cls, settings: Any) -> Any:
        """Refuses the URL of a store for what has to be on a disk of this machine."""
        for name, given in settings.items() if isinstance(settings, Mapping) else ():
            several = given if isinstance(given, list | tuple) else [given]
            urls = [each for each in several if is_url(each)]
            if urls and name in cls.model_fields and not _may_be_on_store(cls.model_fields[name]):
                raise UserError(
                    f"{name}: {urls[0]} is on a store, and this has to be on a disk of this "
                    "machine: give a folder or file here, and copy it there afterwards"
                )
        return settings


def _may_be_on_store(field: FieldInfo) -> bool:
    """Whether a setting is no path, or one that may be a store's."""
    kinds = {field.annotation, *get_args(field.annotation)}
    is_path = bool(kinds & {Path, list[Path]})
    return not is_path or any(isinstance(part, OnStore) for part in field.metadata)


class OnStore:
    """Beside the type of a path: it may be on a store as well, `s3://bucket/table` say."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_plain_validator_function(
            as_path,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda path: None if path is None else str(path), when_used="json"
            ),
        )


_SCHEME = "shipped"


def find_shipped(model: str) -> str:
    """The folder of a small policy that is shipped, `shipped:sums` say; other names as they are.

    Raises:
        UserError: There is none of this name.
    """
    if model.partition(":")[0] != _SCHEME:
        return model
    shipped = _shipped()
    if model not in shipped:
        raise UserError(f"{model}: no such policy is shipped; there are {', '.join(shipped)}")
    return shipped[model]


def typed_model(model: str) -> str:
    """A model as a user would type it: `shipped:sums` for that one's folder; others as they are."""
    by_folder = {folder: name for name, folder in _shipped().items()}
    return by_folder.get(model, model)


def _shipped() -> dict[str, str]:
    """The folders of the policies that are shipped, by what a user types."""
    folder = Path(str(resources.files("astarpo"))) / "assets"
    return {f"{_SCHEME}:{path.name}": str(path) for path in sorted(folder.iterdir())}


Model = Annotated[str, AfterValidator(find_shipped)]
"""A policy: a folder, a hub name, or `shipped:NAME` for a small one of this package's own."""


def function_reference(reward: Any) -> Any:
    """Names a Python function as `MODULE:NAME`, so that other processes can import it.

    Raises:
        UserError: It cannot be imported: a lambda, a function inside another, or one of the script
            or notebook that runs. A call in Python takes such a one as `reward=`, a config not.
    """
    if not callable(reward):
        return reward
    module, name = getattr(reward, "__module__", None), getattr(reward, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise UserError(
            f"{reward!r} cannot be imported by the processes that judge answers: define it at the "
            "top level of a file of its own, or give 'FILE.py:NAME'; or give the function itself "
            "as reward= to astarpo.estimate, astarpo.train and astarpo.evaluate"
        )
    return f"{module}:{name}"


def is_function(reward: Any) -> bool:
    """Whether what judges responses is code that is imported, and not one of the tasks."""
    return isinstance(reward, str) and ":" in reward and not reward.startswith("reasoning_gym:")


RewardReference = Annotated[str | None, BeforeValidator(function_reference)]
"""What judges responses, by name: a task, or a function, which may be given as such in Python."""

# What several verbs have; each says in its own words what it is for.

TrustReward = Annotated[
    RewardReference, declare(Group.GRADING, on_resume="free", in_experiment="shared")
]
GradeWorkers = Annotated[int, declare(Group.GRADING, on_resume="free", ge=1)]
GradeTimeout = Annotated[float, declare(Group.GRADING, on_resume="free", gt=0)]
Problems = Annotated[
    Path, OnStore(), declare(Group.FILES, on_resume="free", in_experiment="variant")
]
FirstProblems = Annotated[int | None, declare(Group.FILES, ge=1)]
SampleSeed = Annotated[int, declare(Group.SAMPLING, ge=0)]
Overwrite = Annotated[bool, declare(Group.FILES)]


class PromptConfig(Config):
    """How a problem becomes a prompt, shared by every stage."""

    prompt_format: Annotated[Literal["raw", "chat"], declare(Group.SAMPLING)] = "raw"
    """What is put to the model: plain text, or its tokenizer's chat template."""
    max_prompt_tokens: Annotated[int, declare(Group.SAMPLING, ge=1)] = 256
    """Longest prompt, in tokens; problems with longer ones are left out and counted."""
    max_new_tokens: Annotated[int, declare(Group.SAMPLING, ge=1)] = 1024
    """Longest response, in tokens; it is cut there."""


EstimatorName = Literal["plugin", "shrunk", "zero", "constant"]


class ValueConfig(Config):
    """How V* follows from a problem's samples."""

    beta1: Annotated[float, declare(Group.VALUES, ge=0, allow_inf_nan=True)] = 0.5
    """Temperature of V*, in units of reward: inf makes V* the mean reward of a problem's samples, 0
    the largest."""
    estimator: Annotated[EstimatorName, declare(Group.VALUES)] = "plugin"
    """How V* is estimated: plugin is the paper's, from a problem's own samples; shrunk draws each
    problem towards the others, as far as its samples leave open, and does with fewer of them. zero
    and constant, one value for all problems, are controls: they show what an estimate is worth."""

    @model_validator(mode="after")
    def _estimator_can(self) -> Self:
        if self.estimator == "shrunk" and self.beta1 == 0:
            raise UserError(
                "estimator shrunk: at beta1 0 V* is the largest reward, of which other problems "
                "say nothing: give a larger --beta1, or --estimator plugin"
            )
        return self


class ComputeConfig(Config):
    """Where and how fast things run; results do not depend on it beyond rounding."""

    device: Annotated[Literal["auto", "cpu", "cuda"], declare(Group.BATCHES, on_resume="free")] = (
        "auto"
    )
    """Where models run; auto takes the GPU where there is one."""
    engine: Annotated[
        Literal["auto", "vllm", "hf", "generate"], declare(Group.SAMPLING, on_resume="steering")
    ] = "auto"
    """What samples responses: vllm is the fastest on a GPU; hf is this package's own loop; generate
    is that of transformers, slower, for any model; auto takes vllm on a GPU where it is installed,
    else hf."""
    engine_memory: Annotated[float | None, declare(Group.BATCHES, on_resume="free", gt=0, lt=1)] = (
        None
    )
    """Share of a GPU's memory that vllm takes; else .9, and .5 in training."""
    max_sequences: Annotated[int, declare(Group.BATCHES, ge=1)] = 256
    """Responses that are sampled at the same time."""
    grade_workers: GradeWorkers = 2
    """Processes that judge responses."""
    grade_timeout: GradeTimeout = 5.0
    """Seconds of CPU time to judge one response; after them its verdict is timeout."""
    trust_reward: TrustReward = None
    """Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the problem file names as its
    judge: it runs only if you name it here."""
