"""Scores of sampled answers and their uncertainty. Pure numbers; imports no torch.

Shapes: _P problems, _K samples of one problem.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959963984540054

# Means of equal rewards may differ by this much.
_ROUNDING = 1e-9


class Score(NamedTuple):
    """A mean over problems with its 95% interval."""

    value: float
    low: float
    high: float


def mean_score(scores: Sequence[float] | NDArray[np.float64]) -> Score:
    """Mean of per-problem scores with a 95% interval over problems.

    Scores in [0, 1] get a Wilson interval at the sample size that a coin of the same mean would
    need for the same variance: the ordinary Wilson interval where scores are 0 or 1, a narrower one
    for averages of several samples, and never an empty one at 0 or 1. Other scores get the normal
    interval. Scores that are all equal show no spread to go by: see `_unseen`.

    Args:
        scores: [P], one number a problem.

    Raises:
        ValueError: There is none.
    """
    scores_P = np.asarray(scores, dtype=np.float64)
    if scores_P.size == 0:
        raise ValueError("no scores")
    count = scores_P.size
    mean = float(scores_P.mean())
    least, most = min(0.0, float(scores_P.min())), max(1.0, float(scores_P.max()))
    if math.isclose(scores_P.min(), scores_P.max(), abs_tol=_ROUNDING):
        return _unseen(mean, count, least, most)
    variance = float(scores_P.var())
    if least < 0 or most > 1:
        margin = _Z95 * math.sqrt(variance / (count - 1))
        return Score(mean, mean - margin, mean + margin)
    effective = count * mean * (1 - mean) / variance
    shrink = 1 + _Z95**2 / effective
    center = (mean + _Z95**2 / (2 * effective)) / shrink
    spread = math.sqrt(mean * (1 - mean) / effective + _Z95**2 / (4 * effective**2))
    margin = _Z95 * spread / shrink
    return Score(mean, max(0.0, center - margin), min(1.0, center + margin))


def mean_change(before: Sequence[float], after: Sequence[float]) -> Score:
    """Mean change of per-problem scores with a 95% interval of the pairs.

    It is the normal one. Where all changes are equal, as when nothing changes, see `_unseen`: a
    score in [0, 1] changes by -1 to 1.

    Args:
        before: [P], one number a problem.
        after: [P], of the same problems.

    Raises:
        ValueError: There is none.
    """
    changes_P = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if changes_P.size == 0:
        raise ValueError("no scores")
    count, mean = changes_P.size, float(changes_P.mean())
    largest = max(1.0, float(np.abs(changes_P).max()))
    if math.isclose(changes_P.min(), changes_P.max(), abs_tol=_ROUNDING):
        return _unseen(mean, count, -largest, largest)
    margin = _Z95 * float(changes_P.std(ddof=1)) / math.sqrt(count)
    return Score(mean, mean - margin, mean + margin)


def _unseen(mean: float, count: int, least: float, most: float) -> Score:
    """The interval around `count` equal scores: what else the problems not drawn may hold.

    A kind of problem that is not among `count` drawn ones may still make up a share of
    z^2 / (z^2 + count) of all, by the Wilson interval of 0 out of `count`. Its score is `least` or
    `most` at the worst.
    """
    share = _Z95**2 / (_Z95**2 + count)
    return Score(mean, mean - share * (mean - least), mean + share * (most - mean))


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Unbiased chance that at least one of k samples is right (Chen et al. 2021, 2107.03374).

    Args:
        num_samples: Samples taken, at least k.
        num_right: How many of them are right.
        k: Size of the draw.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k must be from 1 to {num_samples}, got {k}")
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def majority_right(answers: Sequence[str | None], rewards: Sequence[float]) -> float:
    """Reward of the most frequent answer; samples without an answer do not vote.

    Answers are told apart as extracted. Ties share: the mean over the answers that tie, so that
    the order of samples does not matter.

    Args:
        answers: [K] extracted answers.
        rewards: [K].
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    by_winner = [
        float(np.mean([r for a, r in zip(answers, rewards, strict=True) if a == winner]))
        for winner in winners
    ]
    return float(np.mean(by_winner))
