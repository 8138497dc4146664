r"""How success rates are spread over problems, and how surely the counts say so (stage 1).

    p ~ Beta(a, b) over problems, k ~ Binomial(n, p);    m = a / (a + b), rho = 1 / (1 + a + b)

`fit_beta_prior` gives the likeliest a and b. Beside few counts others are nearly as likely: 24
problems with two samples each may seem to be all alike although their rates differ by a fifth.
`weigh_priors` keeps them all, on a grid of m and rho. What is known of a problem is then a mixture,

    p | all counts  ~  sum over the grid of weight * Beta(k + a, n - k + b)

which `Priors.known` gives as the Beta distribution of the same mean and variance. `moment_errors`
does the same where rewards have more than two values, for rates read means:

    mean(x) ~ Normal(m, tau^2), r ~ Normal(mean(x), sigma^2);    rho = tau^2 / (tau^2 + sigma^2)

Source: Griffiths 1973, Biometrics 29, for the likelihood; Kass and Steffey 1989, JASA 84, for what
is missing from the error when only the likeliest prior is looked at. Deviations: the fit counts
half a success and half a failure more, and a priori takes problems that differ less for likelier
(density 2 (1 - rho)). Beside more than a few problems neither matters; without them a fit could end
at infinity. Kass and Steffey expand about the likeliest prior, which fails where that one says that
all problems are alike; here the sum is taken.

Shapes: _P problems, _N samples of a problem, _K different counts, _G places of the grid.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astarpo.values.estimators import Floats

FURTHER_SAMPLES = 8
"""A problem counts as all wrong if this many more samples, the paper's N, would more likely than
not all be."""

# Logits between which the fit looks for the mean success rate, and for rho.
_MEAN_LOGITS, _RHO_LOGITS = (-14.0, 14.0), (-12.0, 6.0)
_SWEEPS, _GOLDEN_STEPS = 8, 40

_PLACES = 25
"""Along each axis of the grid, of which more than half are on the hill: about one a standard
deviation, from which on a sum over a bell curve is its integral."""
_DROP = 12.0
"""The hill ends where the density is e^-12 of its greatest."""

Counted = tuple[tuple[int, int, int], ...]
"""Successes and samples of problems, and how many problems have just so many: all that a prior is
found from, and often found from again."""


class Beta(NamedTuple):
    """A Beta distribution of a success rate, over problems or of one of them."""

    a: float
    b: float


def fit_beta_prior(right_P: np.ndarray, count_P: np.ndarray) -> Beta:
    """Fits how success rates are spread over problems, from k of n successes of each.

    The mean a / (a + b) and rho = 1 / (1 + a + b) hardly depend on one another, so each in turn is
    set to its best until both stay.

    Args:
        right_P: [P] successes.
        count_P: [P] samples, at least one each.
    """
    return _likeliest(_counted(right_P, count_P))


@lru_cache(maxsize=8)
def _likeliest(counted: Counted) -> Beta:
    def fitness(mean_logit: float, rho_logit: float) -> float:
        prior = _prior(mean_logit, rho_logit)
        mean, rho = _sigmoid(mean_logit), _sigmoid(rho_logit)
        start = _log_beta(*prior)
        return (
            sum(t * (_log_beta(k + prior.a, n - k + prior.b) - start) for k, n, t in counted)
            + 0.5 * math.log(mean * (1 - mean))
            + math.log(1 - rho)
        )

    right, count = (sum(counts[i] * counts[2] for counts in counted) for i in (0, 1))
    smoothed = (right + 0.5) / (count + 1)
    mean_logit, rho_logit = math.log(smoothed / (1 - smoothed)), 0.0
    for _ in range(_SWEEPS):
        rho_logit = _argmax(lambda x: fitness(mean_logit, x), *_RHO_LOGITS)  # noqa: B023
        mean_logit = _argmax(lambda x: fitness(x, rho_logit), *_MEAN_LOGITS)  # noqa: B023
    return _prior(mean_logit, rho_logit)


class Priors(NamedTuple):
    """Beta distributions of success rates over problems, each as likely as the counts make it.

    Attributes:
        a_G: [G] of each.
        b_G: [G] of each.
        weight_G: [G] probabilities, 1 in all.
    """

    a_G: Floats
    b_G: Floats
    weight_G: Floats

    def known(self, right: int, count: int) -> Beta:
        """What is known of a problem's success rate, from k of n successes of its own."""
        a_G, b_G = self.a_G + right, self.b_G + count - right
        mean_G = a_G / (a_G + b_G)
        variance_G = mean_G * (1 - mean_G) / (a_G + b_G + 1)
        mean = float(self.weight_G @ mean_G)
        variance = float(self.weight_G @ (variance_G + (mean_G - mean) ** 2))
        worth = mean * (1 - mean) / variance - 1
        return Beta(mean * worth, (1 - mean) * worth)


def weigh_priors(right_P: NDArray[np.int64], count_P: NDArray[np.int64]) -> Priors:
    """Weighs all priors by how likely they make the counts.

    Args:
        right_P: [P] successes.
        count_P: [P] samples, at least one each.

    Example:
        >>> few = weigh_priors(np.array([2, 1, 1, 0]), np.array([2, 2, 2, 2]))
        >>> [round(x, 1) for x in few.known(1, 2)]  # half, give or take a fifth
        [2.5, 2.5]
    """
    return _weighed(_counted(right_P, count_P))


@lru_cache(maxsize=8)
def _weighed(counted: Counted) -> Priors:
    right_K, count_K, times_K = np.array(counted, dtype=np.int64).reshape(-1, 3).T

    def fitness(mean_logit_G: Floats, rho_logit_G: Floats) -> Floats:
        a_G, b_G = _priors(mean_logit_G, rho_logit_G)
        most = int(count_K.max(initial=0))
        a_GN, b_GN, both_GN = (_log_rising(x_G, most) for x_G in (a_G, b_G, a_G + b_G))
        likely_GK = a_GN[:, right_K] + b_GN[:, count_K - right_K] - both_GN[:, count_K]
        mean_G = _log_odds_parts(mean_logit_G).sum(axis=0) / 2
        return likely_GK @ times_K + mean_G + _log_rho_density(rho_logit_G)

    (mean_logit_G, rho_logit_G), weight_G = _weigh(fitness, _MEAN_LOGITS, _RHO_LOGITS)
    return Priors(*_priors(mean_logit_G, rho_logit_G), weight_G)


def moment_errors(
    mean_P: Floats, count_P: NDArray[np.int64], within: float, value_P: Floats
) -> Floats:
    """[P] mean squared distance of problems' expectations from estimates of them.

    Args:
        mean_P: [P] mean of each problem's samples.
        count_P: [P] samples, at least one each.
        within: Variance of a problem's samples, sigma^2, above 0; taken as known.
        value_P: [P] the estimates.
    """
    number_K, place_P, times_K = np.unique(count_P, return_inverse=True, return_counts=True)
    centre = float(mean_P.mean())
    sum_K = np.bincount(place_P, mean_P - centre)
    squares_K = np.bincount(place_P, (mean_P - centre) ** 2)

    def model(rho_logit_G: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """tau^2, and the precision of each problem's mean; of m, its precision and its mean."""
        between_G1 = within * np.exp(rho_logit_G)[:, None]
        precision_GK = 1 / (between_G1 + within / number_K)
        total_G = precision_GK @ times_K
        return between_G1, precision_GK, total_G, precision_GK @ sum_K / total_G

    def fitness(rho_logit_G: Floats) -> Floats:
        _, precision_GK, total_G, m_G = model(rho_logit_G)
        misfit_G = precision_GK @ squares_K - total_G * m_G**2
        spread_G = np.log(precision_GK) @ times_K - np.log(total_G)
        return (spread_G - misfit_G) / 2 + _log_rho_density(rho_logit_G)

    (rho_logit_G,), weight_G = _weigh(fitness, _RHO_LOGITS)
    between_G1, precision_GK, total_G, m_G = model(rho_logit_G)
    squared_P = np.zeros(len(mean_P))
    for g, weight in enumerate(weight_G):
        share_K = between_G1[g] * precision_GK[g]
        variance_K = share_K * within / number_K + (1 - share_K) ** 2 / total_G[g]
        m = centre + m_G[g]
        distance_P = m + share_K[place_P] * (mean_P - m) - value_P
        squared_P += weight * (variance_K[place_P] + distance_P**2)
    return squared_P


def chance_of_all(a: float, b: float, num_samples: int = FURTHER_SAMPLES) -> float:
    """Probability that so many samples of a problem all succeed where p ~ Beta(a, b)."""
    return math.exp(_log_beta(a + num_samples, b) - _log_beta(a, b))


def _prior(mean_logit: float, rho_logit: float) -> Beta:
    samples = math.exp(-rho_logit)  # 1 / rho - 1
    mean = _sigmoid(mean_logit)
    return Beta(mean * samples, (1 - mean) * samples)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _argmax(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one hill is largest, by golden sections."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_GOLDEN_STEPS):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return (low + high) / 2


def _counted(right_P: NDArray[np.int64], count_P: NDArray[np.int64]) -> Counted:
    pairs, times_K = np.unique(np.stack([right_P, count_P], axis=1), axis=0, return_counts=True)
    return tuple((k, n, t) for (k, n), t in zip(pairs.tolist(), times_K.tolist(), strict=True))


def _priors(mean_logit_G: Floats, rho_logit_G: Floats) -> tuple[Floats, Floats]:
    log_p_G, log_q_G = _log_odds_parts(mean_logit_G)
    return np.exp(log_p_G - rho_logit_G), np.exp(log_q_G - rho_logit_G)


def _log_odds_parts(logit_G: Floats) -> Floats:
    """[2, G]: ln p and ln(1 - p)."""
    return -np.logaddexp(0, np.stack([-logit_G, logit_G]))


def _log_rho_density(rho_logit_G: Floats) -> Floats:
    """Of the logit, where rho has the density 2 (1 - rho); up to a constant."""
    log_rho_G, log_rest_G = _log_odds_parts(rho_logit_G)
    return log_rho_G + 2 * log_rest_G


def _log_rising(x_G: Floats, most: int) -> Floats:
    """[G, N + 1]: ln x (x + 1) ... (x + n - 1) for n from 0 to `most`."""
    sums_GN = np.log(x_G[:, None] + np.arange(most)).cumsum(axis=1)
    return np.concatenate([np.zeros((len(x_G), 1)), sums_GN], axis=1)


def _weigh(
    fitness: Callable[..., Floats], *ranges: tuple[float, float]
) -> tuple[list[Floats], Floats]:
    """Places on a grid around where a function of one hill is large, and the weight of each.

    A grid over everything may meet the hill in one place only. What lies around that becomes the
    next grid, until a grid is filled by the hill.

    Args:
        fitness: Log density, up to a constant, of coordinates of places, [G] each.
        ranges: Where to look in each coordinate.
    """
    box = list(ranges)
    while True:
        axes = [np.linspace(*side, _PLACES) for side in box]
        places = [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]
        density_G = fitness(*places)
        density_G -= density_G.max()
        high = np.argwhere((density_G > -_DROP).reshape([_PLACES] * len(box)))
        first, last = np.maximum(high.min(axis=0) - 1, 0), high.max(axis=0) + 1
        last = np.minimum(last, _PLACES - 1)
        if (last - first > _PLACES // 2).all():
            weight_G = np.exp(density_G)
            return places, weight_G / weight_G.sum()
        sides = zip(axes, first, last, strict=True)
        box = [(float(axis[i]), float(axis[j])) for axis, i, j in sides]
