r"""V* of each prompt from the rewards of N samples of the reference policy (stage 1).

    V*(x) = beta ln E_{y ~ pi_ref}[exp(r(x, y) / beta)]         (the optimum, in closed form)
    V^(x) = beta ln( (1/N) sum_i exp(r_i / beta) )              (its estimate)

Source: arXiv 2505.20686, section 3; beta is the paper's beta_1, 0.5 by default. No deviations. The
limits are taken exactly: beta = inf is the mean of the rewards, beta = 0 their maximum.

Shapes: _P problems, _N samples of one problem.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class ValueEstimate(NamedTuple):
    """V^* of each problem and how far it may be off.

    Attributes:
        v_star_P: [P], in units of reward.
        standard_error_P: [P], in units of reward; NaN with a single sample.
    """

    v_star_P: Floats
    standard_error_P: Floats


class ProblemValues(NamedTuple):
    """What the samples of each problem say of it, before any filter.

    Attributes:
        v_star_P: [P] V^*, in units of reward.
        standard_error_P: [P] of V^*, as in `ValueEstimate`.
        num_samples_P: [P] how many samples it is from.
        mean_P: [P] mean reward.
        lowest_P: [P] least reward.
        highest_P: [P] greatest reward.
    """

    v_star_P: Floats
    standard_error_P: Floats
    num_samples_P: NDArray[np.int64]
    mean_P: Floats
    lowest_P: Floats
    highest_P: Floats


def problem_values(rewards: ArrayLike, beta: float) -> ProblemValues:
    """V* of problems that need not have equally many samples.

    Args:
        rewards: [P, N], NaN where a problem has no such sample; each has at least one.
        beta: As in `optimal_values`.

    Raises:
        ValueError: As in `optimal_values`.
    """
    rewards_PN = np.asarray(rewards, dtype=np.float64)
    there_PN = ~np.isnan(rewards_PN)
    num_samples_P = there_PN.sum(axis=1)
    floats_P = np.full((5, len(rewards_PN)), np.nan)
    for count in np.unique(num_samples_P):
        chosen_P = num_samples_P == count
        group_PN = rewards_PN[chosen_P][there_PN[chosen_P]].reshape(chosen_P.sum(), count)
        v_star_P, error_P = value_estimates(group_PN, beta)
        moments = group_PN.mean(axis=1), group_PN.min(axis=1), group_PN.max(axis=1)
        floats_P[:, chosen_P] = v_star_P, error_P, *moments
    v_star_P, error_P, *moments = floats_P
    return ProblemValues(v_star_P, error_P, num_samples_P, *moments)


def optimal_values(rewards: ArrayLike, beta: float) -> Floats:
    """Estimates V* from sampled rewards (paper, stage 1).

    Args:
        rewards: [P, N] rewards of N samples for each of P problems (or [N], for one problem).
        beta: The paper's beta_1, from 0 (the maximum) to inf (the mean).

    Returns:
        [P] estimates (a 0-d array for one problem), never below the mean nor above the maximum.

    Raises:
        ValueError: beta is negative or NaN, a reward is not finite, or there is no sample.
    """
    rewards_PN = np.asarray(rewards, dtype=np.float64)
    if rewards_PN.ndim == 0 or rewards_PN.shape[-1] == 0:
        raise ValueError(f"rewards need a sample a problem, got shape {rewards_PN.shape}")
    if not np.isfinite(rewards_PN).all():
        raise ValueError("rewards must be finite")
    if math.isnan(beta) or beta < 0:
        raise ValueError(f"beta must be 0 or more (inf is the mean), got {beta}")

    max_P = rewards_PN.max(axis=-1)
    if beta == 0:
        return max_P
    if math.isinf(beta):
        return rewards_PN.mean(axis=-1)
    # exp(x) - 1 of the shifted rewards: no overflow at small beta, and at large beta none of the
    # digits that 1 + x would lose.
    with np.errstate(over="ignore", under="ignore"):
        excess_PN = np.expm1((rewards_PN - max_P[..., None]) / beta)
    return max_P + beta * np.log1p(excess_PN.mean(axis=-1))


def value_estimates(rewards: ArrayLike, beta: float) -> ValueEstimate:
    """Estimates V* with its standard error, by the jackknife.

    The standard error is the root of (N - 1) / N times the sum over i of the squared deviations of
    V^ without sample i. At beta = inf that is the mean's, sd / sqrt(N). The delta method would give
    a fifth less at N = 8, beta = 0.5 where one sample in twenty succeeds. Where all N rewards are
    equal it is 0: the sample shows no spread, no more than that. At beta = 0 the estimate is a
    maximum, which has no such error: NaN.

    Args:
        rewards: As in `optimal_values`.
        beta: As in `optimal_values`.

    Raises:
        ValueError: As in `optimal_values`.
    """
    rewards_PN = np.asarray(rewards, dtype=np.float64)
    v_star_P = optimal_values(rewards_PN, beta)
    num_samples = rewards_PN.shape[-1]
    if beta == 0 or num_samples == 1:
        return ValueEstimate(v_star_P, np.full_like(v_star_P, np.nan))
    without_NP = np.stack(
        [optimal_values(np.delete(rewards_PN, i, axis=-1), beta) for i in range(num_samples)]
    )
    return ValueEstimate(v_star_P, math.sqrt(num_samples - 1) * without_NP.std(axis=0))
