"""What one step of training looked like, in numbers. Units: tokens, seconds, GiB.

Shapes: _B sequences, _G groups of sequences that belong together.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from astarpo.runtime.memory import device_memory_gib, peak_memory_gib
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
    """Standard error of the mean reward over prompts, since a prompt's samples succeed together.

    The samples of a prompt stand side by side. A single prompt has an error of 0.
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
        **device_memory_gib(),
    }


def run_summary(
    rows: Sequence[Mapping[str, Any]], engine: Mapping[str, Any], *, completed: bool
) -> dict[str, Any]:
    """A run in a few numbers, from the metrics of its steps: what `summary.json` holds."""
    last = rows[-1] if rows else {"step": 0}
    return {
        "completed": completed,
        "steps": last["step"],
        "reward": last.get("reward"),
        "kl": last.get("kl"),
        "tokens": sum(row["tokens"] for row in rows),
        "seconds": {phase: sum(row[f"seconds_{phase}"] for row in rows) for phase in PHASES},
        "engine": {**engine, **{name: last.get(name) for name in ("decoding", "forward")}},
        "peak_memory_gib": max((row["peak_memory_gib"] for row in rows), default=peak_memory_gib()),
    }


def run_verdicts(rows: Sequence[Mapping[str, Any]]) -> tuple[Counter[str], float]:
    """How many answers of a run's steps, at least one, have each status; the share truncated."""
    counts: Counter[str] = Counter({s: sum(row[f"status_{s}"] for row in rows) for s in STATUSES})
    truncated = sum(
        row["truncated_share"] * sum(row[f"status_{s}"] for s in STATUSES) for row in rows
    )
    return counts, truncated / counts.total()


def standard_error(values_B: Tensor, group_B: Tensor) -> float:
    """Standard error of a mean where values of one group, as of one prompt, depend on each other.

    Groups are independent of each other and of one size. The values of a single group are taken as
    independent.

    Args:
        values_B: [B].
        group_B: [B] which group each belongs to.
    """
    values_B = values_B.double()
    _, group_B = group_B.unique(return_inverse=True)
    sizes_G = group_B.bincount()
    if len(sizes_G) > 1:
        values_B = values_B.new_zeros(len(sizes_G)).index_add_(0, group_B, values_B) / sizes_G
    if len(values_B) == 1:
        return 0.0
    return values_B.std().item() / math.sqrt(len(values_B))


def summarize_records(records: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """Mean and standard deviation of each record over the sequences it has."""
    summary = {}
    for name, parts in records.items():
        values = torch.cat(list(parts)).double()
        summary[name] = values.mean().item()
        summary[f"{name}_std"] = values.std(correction=0).item()
    return summary
