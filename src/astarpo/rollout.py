"""Problems to judged answers: sample, decode, judge. What stage 1, stage 2 and evaluation share."""

from collections.abc import Callable, Sequence

from astarpo.engines.base import Engine, Request, Sampling
from astarpo.grading.grader import Grader
from astarpo.grading.pool import GradingStopped
from astarpo.models.vocabulary import Vocabulary
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
