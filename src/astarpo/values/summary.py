"""What stage 1 found, in numbers and in text: solve rates, all wrong and all right, lengths.

The log of `astarpo estimate`, its picture and the report's section on stage 1 all read this.
Imports no torch: reports read it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from astarpo.values.estimators import Floats, ProblemValues

# Rewards of 0 and 1 give N + 1 levels; many more come from rewards of any size.
_MAX_LEVELS = 40
_NUM_BINS = 20

_BAR_WIDTH = 40
_MAX_COUNTS = 2


class Levels(NamedTuple):
    """Mean rewards, or centres of bins, rising; and how many problems have each."""

    rewards: Floats
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class ValueSummary:
    """What stage 1 found.

    Attributes:
        num_problems: Problems that have samples.
        num_samples: The different numbers of samples that problems have, rising.
        mean_reward: Over all samples.
        all_wrong: Share of problems whose samples all have a reward of 0 or less.
        all_right: Share of problems whose samples all have a reward of 1 or more.
        solve_rates: Problems by mean reward.
    """

    num_problems: int
    num_samples: Sequence[int]
    mean_reward: float
    all_wrong: float
    all_right: float
    solve_rates: Levels


def summarize_values(found: ProblemValues) -> ValueSummary:
    """Puts what was found of each of some problems into a few numbers."""
    return ValueSummary(
        num_problems=len(found.mean_P),
        num_samples=np.unique(found.num_samples_P).tolist(),
        mean_reward=float(np.average(found.mean_P, weights=found.num_samples_P)),
        all_wrong=float((found.highest_P <= 0).mean()),
        all_right=float((found.lowest_P >= 1).mean()),
        solve_rates=level_counts(found.mean_P),
    )


@dataclass(frozen=True)
class SampleSummary:
    """How long the samples of a table are, and how judging them went.

    Attributes:
        num_tokens: Tokens of all samples together.
        median_length: Tokens of a sample.
        longest: Tokens of the longest sample.
        truncated_share: Share of samples that the token limit cut off.
        statuses: Samples by status, the most frequent first.
    """

    num_tokens: int
    median_length: float
    longest: int
    truncated_share: float
    statuses: Counter[str]


def summarize_samples(samples: pa.Table) -> SampleSummary:
    """Puts samples into a few numbers: columns `num_tokens`, `finish_reason` and `status`."""
    lengths = samples["num_tokens"].to_numpy()
    return SampleSummary(
        num_tokens=int(lengths.sum()),
        median_length=float(np.median(lengths)),
        longest=int(lengths.max()),
        truncated_share=column_counts(samples["finish_reason"])["length"] / len(samples),
        statuses=column_counts(samples["status"]),
    )


def describe(values: ValueSummary, samples: SampleSummary, max_new_tokens: int) -> str:
    """What stage 1 found, as text for the log."""
    rates, counts = values.solve_rates
    counted = count_words(values.num_samples)
    lines = [f"solve rate of {values.num_problems} problems over {counted} samples:"]
    for rate, count in zip(rates, counts, strict=True):
        bar = "#" * round(_BAR_WIDTH * count / counts.max())
        lines.append(f"  {rate:6.3f}  {count / values.num_problems:6.1%}  {bar}")
    verdicts = ", ".join(f"{status} {count}" for status, count in samples.statuses.most_common())
    lines += [
        f"all wrong {values.all_wrong:.1%}, all right {values.all_right:.1%}; "
        f"mean {values.mean_reward:.3f}",
        f"tokens a sample: median {samples.median_length:.0f}, longest {samples.longest}, "
        f"limit {max_new_tokens}; truncated {samples.truncated_share:.1%}; verdicts: {verdicts}",
    ]
    return "\n".join(lines)


def count_words(num_samples: Sequence[int]) -> str:
    """The different numbers of samples that problems have, such as "8", "2 or 8", "2 to 31"."""
    if len(num_samples) > _MAX_COUNTS:
        return f"{min(num_samples)} to {max(num_samples)}"
    return " or ".join(map(str, num_samples))


def level_counts(means: ArrayLike) -> Levels:
    """How many problems have each mean reward, [P]; means that hardly repeat are put into bins."""
    means_P = np.asarray(means, dtype=np.float64)
    levels, counts = np.unique(means_P.round(4), return_counts=True)
    if len(levels) <= _MAX_LEVELS:
        return Levels(levels, counts)
    counts, edges = np.histogram(means_P, bins=_NUM_BINS)
    return Levels((edges[:-1] + edges[1:]) / 2, counts)


def column_counts(column: pa.ChunkedArray) -> Counter[str]:
    """How often each value occurs in a column of texts or of their codes."""
    counts: Counter[str] = Counter()
    for chunk in column.chunks:  # Codes of different chunks may mean different texts.
        counts.update({p["values"]: p["counts"] for p in chunk.value_counts().to_pylist()})
    return counts
