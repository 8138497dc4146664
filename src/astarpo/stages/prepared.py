"""What stage 1 and evaluation start from alike, and what a dry run says of it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from astarpo.config import EstimateConfig, EvaluateConfig
from astarpo.engines import require_engine
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.models.prompts import open_prompts
from astarpo.models.vocabulary import Vocabulary, load_vocabulary
from astarpo.runtime.devices import pick_device
from astarpo.runtime.words import shown
from astarpo.types import Problem, Prompt


class Prepared(NamedTuple):
    """Problems, rendered for a model whose weights are not loaded yet.

    Attributes:
        problems: As read, up to the config's limit.
        prompts: Of the problems that are not set aside.
        verifiers: What judges them, with versions.
        vocabulary: The model's.
        device: Where the model will be.
    """

    problems: list[Problem]
    prompts: list[Prompt]
    verifiers: dict[str, str]
    vocabulary: Vocabulary
    device: torch.device


def prepare_prompts(config: EstimateConfig | EvaluateConfig, problems: list[Problem]) -> Prepared:
    """Renders problems and checks that they can be judged.

    Raises:
        UserError: A verifier, the engine, the device or the model is missing, or no prompt fits.
    """
    problems = problems[: config.limit]
    require_engine(config)
    device = pick_device(config.device)
    verifiers = verifier_fingerprint(problems, config.trust_reward)
    vocabulary = load_vocabulary(config.model)
    prompts = open_prompts(
        problems, vocabulary, config.prompt_format, config.max_prompt_tokens, config.max_new_tokens
    )
    return Prepared(problems, prompts, verifiers, vocabulary, device)


def preview_prompts(
    vocabulary: Vocabulary, prompts: Sequence[Prompt], num_problems: int
) -> list[str]:
    """Counts, lengths, and the first prompt as text and as token ids, in lines.

    Args:
        vocabulary: What the prompts were rendered by.
        prompts: Those that would be used.
        num_problems: How many problems were read; the others are set aside.
    """
    first, lengths = prompts[0], [len(prompt.token_ids) for prompt in prompts]
    return [
        f"{len(prompts)} of {num_problems} problems are used ({min(lengths)} to {max(lengths)} "
        "tokens each)",
        f"the first prompt, {first.problem.id}, {len(first.token_ids)} tokens:",
        shown(vocabulary.tokenizer.decode(first.token_ids)),
        f"token ids: {shown(str(list(first.token_ids)))}",
    ]
