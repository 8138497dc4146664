"""What stage 1 has to sample: what its samples depend on, and the shards that are missing.

Shards are cut from one fixed order, so those that an interrupted run left undone are the very ones
that an uninterrupted run would have made, to the byte on CPU.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astarpo.config import EstimateConfig, ImportValuesConfig
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.models.folder import fingerprint
from astarpo.models.prompts import Prompts
from astarpo.types import Problem, Prompt
from astarpo.values.table import ValueTable


def sampling_fingerprint(
    config: EstimateConfig | ImportValuesConfig, problems: Sequence[Problem], seed: int | None
) -> dict[str, Any]:
    """Everything that decides which samples a table holds and how they were judged.

    The seed is None where it is not known, as for samples that others have published.
    """
    return (
        fingerprint(config.model)
        | verifier_fingerprint(problems, config.trust_reward)
        | {
            "prompt_format": config.prompt_format,
            "temperature": config.temperature,
            "top_p": 1.0,
            "max_new_tokens": config.max_new_tokens,
            "seed": seed,
        }
    )


def missing_shards(
    table: ValueTable, prompts: Prompts, num_samples: ArrayLike, shard_problems: int
) -> list[list[tuple[Prompt, int]]]:
    """Groups the samples that are still missing into shards; prompts of similar length go together.

    Args:
        table: What there is.
        prompts: Of the problems.
        num_samples: [P] or one number: samples that each is to have.
        shard_problems: Problems in a shard.

    Returns:
        Of each shard, prompts with the number of the sample.
    """
    missing = table.missing_samples(prompts.problems, num_samples)
    order = np.argsort(prompts.lengths_P, kind="stable").tolist()
    pending = [(prompts[i], missing[i]) for i in order if missing[i]]
    return [
        [(prompt, n) for prompt, numbers in pending[i : i + shard_problems] for n in numbers]
        for i in range(0, len(pending), shard_problems)
    ]
