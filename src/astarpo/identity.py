"""What a run was given, as digests: a resumed run must be given the same, wherever it lies now."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from astarpo.config import TrainConfig
from astarpo.grading import verifier_fingerprint
from astarpo.policy import fingerprint
from astarpo.types import Problem


def input_digests(
    config: TrainConfig,
    problems: Sequence[Problem],
    values: Sequence[float] | None,
    held_out: Sequence[Problem],
) -> dict[str, str]:
    """Digests of a run's inputs, by words that a message can use.

    Args:
        config: Gives model and reward.
        problems: All of the problem set, in order.
        values: V* of those that are trained on.
        held_out: The held-out problems; none if empty.
    """
    digests = {f"the model ({part})": d for part, d in fingerprint(config.model).items()}
    digests |= verifier_fingerprint(problems, config.reward)
    digests["the problems"] = _digest([[p.id, p.digest] for p in problems])
    if values is not None:
        # Another machine's last digit is no other value.
        digests["V* of the problems"] = _digest([f"{value:.6g}" for value in values])
    if held_out:
        digests["the held-out problems"] = _digest([[p.id, p.digest] for p in held_out])
    return digests


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()
