"""Digests of what a run was given: a resumed run must be given the same, from whichever paths."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from astarpo.algorithms.choice import algorithm_version
from astarpo.config import TrainConfig
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.models.folder import fingerprint
from astarpo.training.inputs import Inputs
from astarpo.types import Problem
from astarpo.values.known import digests_of, ids_of


def input_digests(config: TrainConfig, inputs: Inputs) -> dict[str, str]:
    """Digests of a run's inputs, by their names in the message that one of them has changed."""
    digests = {f"the model ({part})": d for part, d in fingerprint(config.model).items()}
    digests |= verifier_fingerprint(inputs.problems, config.trust_reward)
    if version := algorithm_version(config):
        digests["the code of the algorithm"] = version
    digests["the problems"] = _digest(_ids_and_digests(inputs.problems))
    if inputs.prompts.values_P is not None:
        # Six digits: another machine may round the last ones differently.
        values = inputs.prompts.values_P.tolist()
        digests["V* of the problems"] = _digest([f"{value:.6g}" for value in values])
    if inputs.held_out:
        held_out = [prompt.problem for prompt in inputs.held_out]
        digests["the held-out problems"] = _digest(_ids_and_digests(held_out))
    return digests


def _ids_and_digests(problems: Sequence[Problem]) -> list[list[str]]:
    columns = (ids_of(problems).to_pylist(), digests_of(problems).to_pylist())
    return [list(pair) for pair in zip(*columns, strict=True)]


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()
