"""What a run was given, as digests: a resumed run must be given the same, wherever it lies now."""

import hashlib
import json
from typing import Any

from astarpo.config import TrainConfig
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.models.policy import fingerprint
from astarpo.training.inputs import Inputs


def input_digests(config: TrainConfig, inputs: Inputs) -> dict[str, str]:
    """Digests of a run's inputs, by words that a message can use.

    Args:
        config: Gives model and trust_reward.
        inputs: Problems, V* and held-out prompts.
    """
    digests = {f"the model ({part})": d for part, d in fingerprint(config.model).items()}
    digests |= verifier_fingerprint(inputs.problems, config.trust_reward)
    digests["the problems"] = _digest([[p.id, p.digest] for p in inputs.problems])
    if inputs.values is not None:
        # Another machine's last digit is no other value.
        digests["V* of the problems"] = _digest([f"{value:.6g}" for value in inputs.values])
    if inputs.held_out:
        held_out = [prompt.problem for prompt in inputs.held_out]
        digests["the held-out problems"] = _digest([[p.id, p.digest] for p in held_out])
    return digests


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()
