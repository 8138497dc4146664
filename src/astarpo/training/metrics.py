"""What one step of training looked like, in numbers. Units: tokens, seconds, GiB."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from astarpo.runtime.memory import peak_memory_gib
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.types import STATUSES, Answer

PHASES = ("generate", "verify", "reference", "update")


def answer_metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """Rewards, lengths and verdicts of a rollout."""
    lengths = [len(answer.completion.token_ids) for answer in answers]
    rewards = [answer.verdict.reward for answer in answers]
    truncated = sum(answer.completion.finish_reason == "length" for answer in answers)
    statuses = Counter(answer.verdict.status for answer in answers)
    return {
        "reward": sum(rewards) / len(answers),
        "reward_se": _reward_error(answers),
        "reward_min": min(rewards),
        "length_mean": sum(lengths) / len(answers),
        "length_max": max(lengths),
        "truncated_share": truncated / len(answers),
        "tokens": sum(lengths),
    } | {f"status_{status}": statuses[status] for status in STATUSES}


def _reward_error(answers: Sequence[Answer]) -> float:
    """Standard error of the mean reward; 0 for one prompt, of which nothing is known.

    The samples of one prompt, which stand side by side, succeed together: prompts are counted.
    """
    groups = groupby(answers, key=lambda answer: answer.prompt.problem.id)
    means = [statistics.fmean(a.verdict.reward for a in group) for _, group in groups]
    return statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0


def cost_metrics(stopwatch: Stopwatch, num_tokens: float) -> dict[str, float]:
    """Seconds by phase and in all, generated tokens a second over the whole step, peak memory."""
    seconds = {f"seconds_{phase}": stopwatch.seconds.get(phase, 0.0) for phase in PHASES}
    total = sum(seconds.values())
    return seconds | {
        "seconds": total,
        "tokens_per_second": num_tokens / total,
        "peak_memory_gib": peak_memory_gib(),
    }
