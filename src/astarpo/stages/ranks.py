"""What several ranks must have been given alike, before any of them begins."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from astarpo.config import Config
from astarpo.runtime.environment import commit, version_of
from astarpo.runtime.one_process import OneProcess
from astarpo.training.inputs import Inputs
from astarpo.types import Problem
from astarpo.values.known import digests_of, ids_of

_PACKAGES = ("astarpo", "torch", "transformers")


def call_facts(config: Config) -> dict[str, Any]:
    """Settings and versions, by the names that a message gives them."""
    settings = json.loads(config.model_dump_json())
    facts = {f"setting {name}": value for name, value in settings.items()}
    facts |= {f"the version of {name}": version_of(name) for name in _PACKAGES}
    return facts | {"the commit of astarpo": commit()}


def problem_facts(problems: Sequence[Problem]) -> dict[str, Any]:
    """A digest of problems, by the name that a message gives it."""
    digest = hashlib.blake2b(digest_size=12)
    pairs = zip(ids_of(problems).to_pylist(), digests_of(problems).to_pylist(), strict=True)
    for pair in pairs:
        digest.update("{} {}\n".format(*pair).encode())
    return {"the digest of the problems": digest.hexdigest()}


def require_prompts_each(where: OneProcess, prompts_per_step: int, inputs: Inputs) -> None:
    """Checks that every rank has a prompt in each step.

    Raises:
        UserError: There are more ranks than prompts.
    """
    where.require_work(len(inputs.prompts), "prompts")
    where.require_work(prompts_per_step, "prompts in a step (--prompts-per-step)")
