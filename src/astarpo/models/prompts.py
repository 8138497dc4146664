"""The prompts that a verb starts from: rendered, and short enough for the model."""

import sys
from collections.abc import Sequence

from transformers import AutoConfig

from astarpo.models.policy import PromptFormat, fit_prompts, load_part, load_tokenizer
from astarpo.types import Problem, Prompt, UserError


def open_prompts(
    problems: Sequence[Problem],
    model: str,
    prompt_format: PromptFormat,
    max_prompt_tokens: int | None,
    max_new_tokens: int,
) -> list[Prompt]:
    """Renders problems as a model reads them; prompts that are too long are set aside.

    Args:
        problems: In the order wanted.
        model: A folder or a hub name. Its tokenizer and its config are loaded.
        prompt_format: See `policy.render_prompt`.
        max_prompt_tokens: Longer prompts are set aside, with a word in the log; None: none is.
        max_new_tokens: Limit of a response, for which there has to be room as well.

    Raises:
        UserError: The model cannot be found, no prompt is short enough, or the longest leaves no
            room for a response in the model's context.
    """
    tokenizer = load_tokenizer(model)
    limit = sys.maxsize if max_prompt_tokens is None else max_prompt_tokens
    prompts = fit_prompts(problems, tokenizer, prompt_format, limit)
    context = context_length(model)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    if context is not None and longest + max_new_tokens > context:
        remedies = []
        if longest < context:
            remedies.append(f"set max_new_tokens to {context - longest} or less")
        if max_prompt_tokens is not None:
            remedies.append("set longer prompts aside by a smaller max_prompt_tokens")
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} do not fit the "
            f"context of {model}, {context} tokens; {', or '.join(remedies) or 'it is too long'}"
        )
    return prompts


def context_length(model: str) -> int | None:
    """The most tokens that a model was made for, None where its config does not say.

    Raises:
        UserError: The model cannot be found, or its config cannot be read.
    """
    config = load_part(model, "config", AutoConfig)
    return getattr(config.get_text_config(), "max_position_embeddings", None)
