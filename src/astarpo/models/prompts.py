"""The prompts that a verb starts from: rendered, and short enough for the model."""

import logging
import sys
from collections.abc import Sequence

from astarpo.models.vocabulary import PromptFormat, Vocabulary
from astarpo.types import Problem, Prompt, UserError

logger = logging.getLogger("astarpo")


def open_prompts(
    problems: Sequence[Problem],
    vocabulary: Vocabulary,
    prompt_format: PromptFormat,
    max_prompt_tokens: int | None,
    max_new_tokens: int,
) -> list[Prompt]:
    """Renders problems as a model reads them; prompts that are too long are set aside.

    Args:
        problems: In the order wanted.
        vocabulary: The model's.
        prompt_format: See `Vocabulary.render`.
        max_prompt_tokens: Longer prompts are set aside, and the log says how many; None for no
            limit.
        max_new_tokens: Limit of a response, for which there has to be room as well.

    Raises:
        UserError: No prompt is short enough, or the longest leaves no room for a response in the
            model's context.
    """
    limit = sys.maxsize if max_prompt_tokens is None else max_prompt_tokens
    prompts = fit_prompts(problems, vocabulary, prompt_format, limit)
    context = vocabulary.context
    longest = max(len(prompt.token_ids) for prompt in prompts)
    if context is not None and longest + max_new_tokens > context:
        remedies = []
        if longest < context:
            remedies.append(f"set max_new_tokens to {context - longest} or less")
        if max_prompt_tokens is not None:
            remedies.append("set longer prompts aside by a smaller max_prompt_tokens")
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} do not fit the "
            f"context of {vocabulary.name}, {context} tokens; "
            f"{', or '.join(remedies) or 'it is too long'}"
        )
    return prompts


def fit_prompts(
    problems: Sequence[Problem],
    vocabulary: Vocabulary,
    prompt_format: PromptFormat,
    max_tokens: int,
) -> list[Prompt]:
    """Renders problems, setting aside those whose prompt is too long. None is ever cut.

    Raises:
        UserError: None fits, or one is empty: no token would predict the first of a response.
    """
    prompts = [Prompt(p, tuple(vocabulary.render(p, prompt_format))) for p in problems]
    if empty := [prompt.problem.id for prompt in prompts if not prompt.token_ids]:
        raise UserError(f"{empty[0]}: its prompt has no token; give it a text")
    fitting = [prompt for prompt in prompts if len(prompt.token_ids) <= max_tokens]
    if not fitting:
        shortest = min(len(prompt.token_ids) for prompt in prompts)
        raise UserError(
            f"every prompt is longer than max_prompt_tokens={max_tokens} (shortest: {shortest})"
        )
    if num_set_aside := len(prompts) - len(fitting):
        logger.warning(f"set aside: {num_set_aside} prompts of more than {max_tokens} tokens")
    return fitting
