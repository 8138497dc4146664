"""What stage 1 and evaluation start from alike, and what a dry run says of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from astarpo.config import EstimateConfig, EvaluateConfig
from astarpo.engines import require_engine
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.models.prompts import Prompts, open_prompts
from astarpo.models.vocabulary import Vocabulary, load_vocabulary
from astarpo.runtime.devices import pick_device
from astarpo.runtime.words import shown
from astarpo.types import Problem


class Prepared(NamedTuple):
    """Problems, as prompts for a model whose weights are not loaded yet.

    Attributes:
        problems: As read, up to the config's limit.
        prompts: Of the problems that are not set aside.
        verifiers: What judges them, with versions.
        vocabulary: The model's.
        device: Where the model will be.
    """

    problems: Sequence[Problem]
    prompts: Prompts
    verifiers: dict[str, str]
    vocabulary: Vocabulary
    device: torch.device


def prepare_prompts(
    config: EstimateConfig | EvaluateConfig,
    problems: Sequence[Problem],
    known_P: NDArray[np.int64] | None = None,
) -> Prepared:
    """Finds the prompts of problems and checks that they can be judged.

    Args:
        config: Says how.
        problems: As many as the config's limit, or more.
        known_P: See `open_prompts`.

    Raises:
        UserError: A verifier, the engine, the device or the model is missing, or no prompt fits.
    """
    problems = problems[: config.limit]
    require_engine(config)
    device = pick_device(config.device)
    verifiers = verifier_fingerprint(problems, config.trust_reward)
    vocabulary = load_vocabulary(config.model)
    prompts = open_prompts(
        problems,
        vocabulary,
        config.prompt_format,
        config.max_prompt_tokens,
        config.max_new_tokens,
        known_P,
    )
    return Prepared(problems, prompts, verifiers, vocabulary, device)


def preview_prompts(vocabulary: Vocabulary, prompts: Prompts, num_problems: int) -> list[str]:
    """Counts, lengths, and the first prompt as text and as token ids, in lines.

    Args:
        vocabulary: What the prompts were rendered by.
        prompts: Those that would be used.
        num_problems: How many problems were read; the others are set aside.
    """
    first = prompts[0]
    return [
        f"{len(prompts)} of {num_problems} problems are used ({prompts.lengths_P.min()} to "
        f"{prompts.longest} tokens each)",
        f"the first prompt, {first.problem.id}, {len(first.token_ids)} tokens:",
        shown(vocabulary.tokenizer.decode(first.token_ids)),
        f"token ids: {shown(str(list(first.token_ids)))}",
    ]
