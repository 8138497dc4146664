"""What settings share: the rules that all obey, prompts, compute, what judges answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from astarpo.types import UserError


class Config(BaseModel):
    """Base of all settings: frozen, unknown names refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings"
    )


def function_reference(reward: Any) -> Any:
    """Names a Python function as `MODULE:NAME`, so that other processes can import it.

    Raises:
        UserError: It cannot be imported: a lambda, a function inside another, or one of the script
            or notebook that runs.
    """
    if not callable(reward):
        return reward
    module, name = getattr(reward, "__module__", None), getattr(reward, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise UserError(
            f"{reward!r} cannot be imported by the processes that judge answers: define it at the "
            "top level of a file of its own, or give 'FILE.py:NAME'"
        )
    return f"{module}:{name}"


def is_function(reward: Any) -> bool:
    """Whether what judges answers is code that is imported, and not one of the tasks."""
    return isinstance(reward, str) and ":" in reward and not reward.startswith("reasoning_gym:")


RewardReference = Annotated[str | None, BeforeValidator(function_reference)]
"""What judges answers, by name: a task, or a function, which may be given as such in Python."""

OWN_REWARD = "your FILE.py:NAME or MODULE:NAME, where the problem file names it as its judge"


class PromptConfig(Config):
    """How a problem becomes a prompt, shared by every stage."""

    prompt_format: Literal["raw", "chat"] = Field(
        "raw", description="raw text, or the tokenizer's chat template"
    )
    max_prompt_tokens: int = Field(
        256, ge=1, description="longer prompts are set aside and counted, never cut"
    )
    max_new_tokens: int = Field(1024, ge=1, description="limit of a response")


class ComputeConfig(Config):
    """Where and how fast things run; results do not depend on it beyond rounding."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA if present")
    engine: Literal["hf", "generate"] = Field(
        "hf", description="what samples; generate is transformers' own: slower, for any model"
    )
    max_sequences: int = Field(256, ge=1, description="completions decoded at once")
    grade_workers: int = Field(2, ge=1, description="processes that judge answers")
    grade_timeout: float = Field(5.0, gt=0, description="CPU seconds to judge one answer")
    reward: RewardReference = Field(None, description=OWN_REWARD)
