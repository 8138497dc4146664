"""What a dry run says of the prompts that a stage would use."""

from collections.abc import Sequence

from astarpo.models.vocabulary import Vocabulary
from astarpo.types import Prompt


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
        vocabulary.tokenizer.decode(first.token_ids),
        f"token ids: {list(first.token_ids)}",
    ]
