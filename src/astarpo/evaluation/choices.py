"""Multiple choice by likelihood: the policy answers with the ending that it finds likeliest.

As EleutherAI's harness does it: an ending follows the question after a space (right after the
template's generation prompt, where one is used), question and ending are tokenized together, and
`acc` goes by the sum of the ending's log-probs, `acc_norm` by that sum over its characters.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from astarpo.models.batch import micro_batches
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.models.vocabulary import PromptFormat, Vocabulary
from astarpo.runtime.distributed import OneProcess
from astarpo.runtime.progress import Progress
from astarpo.tasks import get_task
from astarpo.tasks.hellaswag import HellaSwag
from astarpo.types import Answer, Completion, Message, Problem, Prompt

MICRO_BATCH_TOKENS = 16384


def has_choices(problem: Problem) -> bool:
    """Whether a problem is answered by one of its choices, not by generated text.

    The task that judges says so: rows of a user's own may well have a column `choices`.
    """
    is_hellaswag = problem.data_source in (HellaSwag.name, *HellaSwag.aliases)
    return is_hellaswag and bool(problem.extra.get("choices"))


def share_choices(
    where: OneProcess, policy: Policy, prompts: Sequence[Prompt], prompt_format: PromptFormat
) -> dict[str, list[Answer]]:
    """As `pick_choices`, by all processes: each reads its share, and gets all answers."""
    mine = where.share([len(prompt.token_ids) for prompt in prompts])
    with where.together():
        picked = pick_choices(policy, [prompts[i] for i in mine], prompt_format)
    return {name: where.gather(answers) for name, answers in picked.items()}


@torch.no_grad()
def pick_choices(
    policy: Policy, prompts: Sequence[Prompt], prompt_format: PromptFormat
) -> dict[str, list[Answer]]:
    """Picks one of the choices of each problem, in two ways.

    Args:
        policy: Whose likelihood decides.
        prompts: Problems with `choices`.
        prompt_format: How a problem becomes a prompt.

    Returns:
        Answers in the order of `prompts`, by `acc` and by `acc_norm`. The verdict's answer is the
        number of the choice, from 0.
    """
    choices = [
        (p, k)
        for p, prompt in enumerate(prompts)
        for k, _ in enumerate(prompt.problem.extra["choices"])
    ]
    vocabulary = policy.vocabulary
    pairs = [_encode(prompts[p].problem, k, vocabulary, prompt_format) for p, k in choices]
    completions: dict[tuple[int, int], Completion] = {}
    with Progress("evaluate: choices", len(pairs)) as progress:
        for rows in micro_batches([len(q) + len(c) for q, c in pairs], MICRO_BATCH_TOKENS):
            batch = policy.collate([pairs[row] for row in rows])
            with policy.autocast():
                logprobs_BT, _ = token_logprobs(policy.model, batch, temperature=1.0)
            for row, values in zip(rows, logprobs_BT.tolist(), strict=True):
                ending = tuple(pairs[row][1])
                logprobs = tuple(values[: len(ending)])
                completions[choices[row]] = Completion(ending, logprobs, "stop")
            progress.advance(len(rows))
    picked: dict[str, list[Answer]] = {"acc": [], "acc_norm": []}
    for p, prompt in enumerate(prompts):
        texts = prompt.problem.extra["choices"]
        totals = [sum(completions[p, k].logprobs) for k in range(len(texts))]
        per_char = [total / max(1, len(t)) for total, t in zip(totals, texts, strict=True)]
        for name, scores in (("acc", totals), ("acc_norm", per_char)):
            best = scores.index(max(scores))
            verdict = get_task(prompt.problem.data_source).grade(
                str(best), prompt.problem.ground_truth
            )
            picked[name].append(Answer(prompt, completions[p, best], texts[best], verdict))
    return picked


def _encode(
    problem: Problem, choice: int, vocabulary: Vocabulary, prompt_format: PromptFormat
) -> tuple[list[int], list[int]]:
    """Token ids of the question and of one choice after it."""
    ending = problem.extra["choices"][choice]
    if prompt_format == "chat":
        ids = vocabulary.tokenizer(ending, add_special_tokens=False)["input_ids"]
        return vocabulary.render(problem, prompt_format), ids
    *before, last = problem.prompt
    text = last["content"]

    def render(content: str) -> list[int]:
        message = Message(role=last["role"], content=content)
        return vocabulary.render(replace(problem, prompt=(*before, message)), "raw")

    # A space before the ending belongs to its first token.
    question = render(text.rstrip())
    return question, render(f"{text} {ending}")[len(question) :]
