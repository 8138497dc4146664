r"""How far V^ from n samples is off, judged by V^ from all N samples of the same problem.

    bias(n) = mean_P ( E[V^_n] - V^_N )          sd(n) = sqrt( mean_P Var[V^_n] )

Expectations are over the choice of n out of the N samples, without replacement. V^_N is the best
estimate at hand, not the truth: at n = N both are 0 by construction, and near it they are too low.

Where all rewards are one of two values (right and wrong) this is exact, by the hypergeometric law
of how many right ones are drawn. Others are averaged over the N windows of n neighbours, in which
the first sample follows the last.

Shapes: _P problems, _N samples of one problem.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from astarpo.values.estimators import Floats, optimal_values


class Deviation(NamedTuple):
    """How far V^_n is from V^_N, in units of reward."""

    bias: float
    sd: float


def value_deviations(rewards: ArrayLike, beta: float, counts: Sequence[int]) -> list[Deviation]:
    """Bias and standard deviation of V^_n, for several n.

    Args:
        rewards: [P, N].
        beta: The paper's beta_1, as in `optimal_values`.
        counts: Each n, from 1 to N.

    Raises:
        ValueError: An n is out of bounds, or `optimal_values` refuses the rest.
    """
    rewards_PN = np.asarray(rewards, dtype=np.float64)
    num_samples = rewards_PN.shape[1]
    if wrong := [n for n in counts if not 1 <= n <= num_samples]:
        raise ValueError(f"n must be from 1 to {num_samples}, got {wrong[0]}")
    moments = _two_valued if len(np.unique(rewards_PN)) <= 2 else _windows
    all_P = optimal_values(rewards_PN, beta)
    deviations = []
    for n in counts:
        mean_P, variance_P = moments(rewards_PN, beta, n)
        bias = float((mean_P - all_P).mean())
        deviations.append(Deviation(bias, math.sqrt(variance_P.mean())))
    return deviations


def _two_valued(rewards_PN: Floats, beta: float, n: int) -> tuple[Floats, Floats]:
    """Mean and variance of V^_n of each problem, over all choices of n samples."""
    low, high = rewards_PN.min(), rewards_PN.max()
    num_samples = rewards_PN.shape[1]
    # V^ of n samples of which 0, 1, ..., n are the higher value.
    drawn = np.where(np.arange(n) < np.arange(n + 1)[:, None], high, low)
    values = optimal_values(drawn, beta)
    right_P = (rewards_PN == high).sum(axis=1) if high > low else np.zeros(len(rewards_PN), int)
    mean_P, variance_P = np.empty(len(rewards_PN)), np.empty(len(rewards_PN))
    for right in np.unique(right_P):
        ways = [math.comb(right, j) * math.comb(num_samples - right, n - j) for j in range(n + 1)]
        chance = np.array([way / math.comb(num_samples, n) for way in ways])
        mean = chance @ values
        mean_P[right_P == right] = mean
        variance_P[right_P == right] = chance @ np.square(values - mean)
    return mean_P, variance_P


def _windows(rewards_PN: Floats, beta: float, n: int) -> tuple[Floats, Floats]:
    """As `_two_valued`, over the windows of n neighbours."""
    num_samples = rewards_PN.shape[1]
    values_NP = np.stack(
        [optimal_values(np.roll(rewards_PN, -i, axis=1)[:, :n], beta) for i in range(num_samples)]
    )
    return values_NP.mean(axis=0), values_NP.var(axis=0)
