"""Problems to judged answers: sample, decode, judge. What stage 1, stage 2 and evaluation share."""

import time
from collections.abc import Callable, Sequence

from astarpo.engines.base import Engine, Request, Sampling
from astarpo.grading.grader import Grader
from astarpo.grading.pool import GradingStopped
from astarpo.models.vocabulary import Vocabulary
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.stopping import StopRequested, stop_requested
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.types import Answer, Prompt


def roll_out(
    vocabulary: Vocabulary,
    engine: Engine,
    grader: Grader,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    sampling: Sampling,
    stopwatch: Stopwatch,
    on_progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """Samples one completion for each prompt and judges it.

    Args:
        vocabulary: Decodes token ids to text.
        engine: Samples.
        grader: Judges.
        prompts: Each as often as it needs completions, its repeats side by side.
        seeds: Seed of each completion.
        sampling: The distribution.
        stopwatch: Gets the phases `generate` and `verify`.
        on_progress: Called with the number of completions that were sampled since the last call.

    Returns:
        The answers, in the order of `prompts`.

    Raises:
        StopRequested: A signal asks to stop.
    """
    with stopwatch.phase("generate"):
        requests = [Request(p.token_ids, s) for p, s in zip(prompts, seeds, strict=True)]
        completions = engine.generate(requests, sampling, on_progress)
    with stopwatch.phase("verify"):
        texts = [vocabulary.decode(completion.token_ids) for completion in completions]
        try:
            verdicts = grader.grade([p.problem for p in prompts], texts, stop_requested)
        except GradingStopped as error:
            raise StopRequested from error
    return [Answer(*row) for row in zip(prompts, completions, texts, verdicts, strict=True)]


def share_roll_out(
    where: OneProcess,
    vocabulary: Vocabulary,
    engine: Engine,
    grader: Grader,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    sampling: Sampling,
    stopwatch: Stopwatch,
    on_progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """As `roll_out`, by all processes: each answers its share of the prompts, and gets all answers.

    The repeats of a prompt go to one process, which reads it once. The phase `generate` counts how
    long this one waits for the others.

    Args:
        where: The processes.
        vocabulary: As in `roll_out`.
        engine: This process's.
        grader: This process's.
        prompts: As in `roll_out`, the same in every process.
        seeds: Likewise.
        sampling: Likewise.
        stopwatch: Gets the phases of this process's share.
        on_progress: Called for this process's share.
    """
    starts = [i for i in range(len(prompts)) if i == 0 or prompts[i] is not prompts[i - 1]]
    ends = [*starts[1:], len(prompts)] if prompts else []
    work = [
        (end - start) * (len(prompts[start].token_ids) + sampling.max_new_tokens)
        for start, end in zip(starts, ends, strict=True)
    ]
    mine = where.share(work)
    part = slice(starts[mine.start], ends[mine.stop - 1]) if mine else slice(0, 0)
    done = sum(stopwatch.seconds.values())
    started = time.perf_counter()
    with where.together():
        answers = roll_out(
            vocabulary, engine, grader, prompts[part], seeds[part], sampling, stopwatch, on_progress
        )
    judged = where.gather([(a.completion, a.text, a.verdict) for a in answers])
    if where.size > 1:
        waited = time.perf_counter() - started - (sum(stopwatch.seconds.values()) - done)
        stopwatch.seconds["generate"] += waited
    return [Answer(prompt, *rest) for prompt, rest in zip(prompts, judged, strict=True)]
