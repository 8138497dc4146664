r"""V* of each problem, drawn towards the others: fewer samples for the same error (stage 1).

A few samples say little of one problem, but those of all problems together say how problems differ.
For rewards of two values, of which k of a problem's n samples have the higher one:

    p ~ Beta(a, b) over problems, k ~ Binomial(n, p)
    a, b      maximise the likelihood of all k                  (the beta-binomial)
    p^(x)   = (k + a) / (n + a + b)                             the posterior mean
    V^(x)   = low + beta_1 ln(1 + p^ (exp((high - low) / beta_1) - 1))

For other rewards the same by moments, on z = exp(r / beta_1), or z = r at beta_1 = inf:

    z^(x)   = m + w (mean z(x) - m),  w = tau^2 / (tau^2 + sigma^2 / n),  V^ = beta_1 ln z^

with m the mean of all z, sigma^2 the variance within problems and tau^2 that between them.

Source: empirical Bayes for binomial rates (Griffiths 1973, Biometrics 29) and for means (Efron and
Morris 1975, JASA 70). Deviations: the fit counts half a success and half a failure more, and a
priori takes problems that differ less for likelier (density 2 (1 - rho) of rho = 1 / (1 + a + b)).
Beside more than a few problems neither matters; without them a fit could end at infinity. With one
sample a problem nothing tells how problems differ: they are then taken as alike.

Shapes: _P problems, _N samples of one problem.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astarpo.values.estimators import Estimator, Floats, ValueEstimate, without

FURTHER_SAMPLES = 8
"""A problem counts as all wrong if this many more samples, the paper's N, would more likely than
not all be."""

# Logits between which the fit looks for the mean success rate, and for rho.
_MEAN_LOGITS, _RHO_LOGITS = (-14.0, 14.0), (-12.0, 6.0)
_SWEEPS, _GOLDEN_STEPS = 8, 40


class Beta(NamedTuple):
    """A Beta distribution of a success rate, over problems or of one of them."""

    a: float
    b: float


@dataclass(frozen=True)
class Shrunk(Estimator):
    """Empirical Bayes over all problems; see the equations at the head of this file.

    Attributes:
        beta1: Above 0; inf makes V* the mean reward.

    Example:
        >>> found = Shrunk(beta1=math.inf).estimate(np.array([[1.0], [0.0], [1.0], [1.0]]))
        >>> found.v_star_P.round(1).tolist()  # one sample each: all are alike
        [0.7, 0.7, 0.7, 0.7]
    """

    beta1: float

    def __post_init__(self) -> None:
        if not self.beta1 > 0:
            raise ValueError(f"beta1 must be above 0, where V* is a mean, got {self.beta1}")

    def estimate(self, rewards_PN: Floats) -> ValueEstimate:
        """By success rates where rewards have two values, else by moments.

        The standard error is the root mean square distance of V* from the estimate by what is then
        known of the problem; NaN where every problem has one sample, which does not show how
        problems differ.
        """
        there_PN = ~np.isnan(rewards_PN)
        levels = _levels(rewards_PN)
        if len(levels) == 2:
            value_P, error_P = self._by_rates(rewards_PN, *levels)
        else:
            value_P, error_P, _ = self._by_moments(rewards_PN, rewards_PN)
        if there_PN.sum(axis=1).max(initial=1) == 1:
            error_P = np.full_like(error_P, np.nan)
        return ValueEstimate(value_P, error_P)

    def left_out(self, rewards_PN: Floats, number: int) -> Floats:
        """With the fit to all samples: one of so many does not sway it, and one alone will do."""
        others_PN, levels = without(rewards_PN, number), _levels(rewards_PN)
        if len(levels) != 2:
            return self._by_moments(others_PN, rewards_PN)[0]
        posteriors, place_P = _posteriors(others_PN, levels[1], _fit(rewards_PN, levels[1]))
        return np.array([self._posterior_value(a, b, *levels) for a, b in posteriors])[place_P]

    def extremes(self, rewards_PN: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """By what is known of a problem, not by one unlucky sample; see `FURTHER_SAMPLES`."""
        if _levels(rewards_PN) != (0.0, 1.0):
            return super().extremes(rewards_PN)
        posteriors, place_P = _posteriors(rewards_PN, 1.0)
        never = np.array([chance_of_all(b, a) >= 0.5 for a, b in posteriors], dtype=bool)
        always = np.array([chance_of_all(a, b) >= 0.5 for a, b in posteriors], dtype=bool)
        return never[place_P], always[place_P]

    def knowledge(self, rewards_PN: Floats) -> tuple[Floats, Floats]:
        """How surely each problem is known.

        Args:
            rewards_PN: As in `estimate`.

        Returns:
            [P] the mean squared distance of V* from its estimate by what is known of the problem,
            and [P] how many samples that is worth: a + b of its posterior, or n + sigma^2 / tau^2.
        """
        levels = _levels(rewards_PN)
        if len(levels) != 2:
            error_P, worth_P = self._by_moments(rewards_PN, rewards_PN)[1:]
            return error_P**2, worth_P
        posteriors, place_P = _posteriors(rewards_PN, levels[1])
        squared = [self._posterior_error(a, b, *levels) ** 2 for a, b in posteriors]
        return np.array(squared)[place_P], np.array([a + b for a, b in posteriors])[place_P]

    def errors_after(self, rewards_PN: Floats, more_P: ArrayLike) -> Floats:
        """By what all samples so far are worth; see `values.rounds` for the law."""
        if (~np.isnan(rewards_PN)).sum(axis=1).max(initial=1) == 1:
            return np.full(len(rewards_PN), np.nan)
        squared_P, worth_P = self.knowledge(rewards_PN)
        return np.sqrt(squared_P / (1 + np.asarray(more_P) / worth_P))

    def _by_rates(self, rewards_PN: Floats, low: float, high: float) -> tuple[Floats, Floats]:
        posteriors, place_P = _posteriors(rewards_PN, high)
        values = np.array([self._posterior_value(a, b, low, high) for a, b in posteriors])
        errors = np.array([self._posterior_error(a, b, low, high) for a, b in posteriors])
        return values[place_P], errors[place_P]

    def _posterior_value(self, a: float, b: float, low: float, high: float) -> float:
        """The estimate where p ~ Beta(a, b): V* at the mean of p."""
        return float(self._value(math.log(a / (a + b)), math.log(b / (a + b)), low, high))

    def _value(self, log_p: Any, log_q: Any, low: float, high: float) -> Any:
        """V* at a success rate p, given by ln p and ln(1 - p)."""
        if math.isinf(self.beta1):
            return low + (high - low) * np.exp(log_p)
        return low + self.beta1 * np.logaddexp(log_q, log_p + (high - low) / self.beta1)

    def _posterior_error(self, a: float, b: float, low: float, high: float) -> float:
        """Root mean square distance of V* from its estimate where p ~ Beta(a, b).

        By the trapezium rule over the logit, with steps that grow towards both tails.
        """
        middle, width = math.log(a / b), min(1.0, math.sqrt(1 / a + 1 / b))
        reach = math.asinh(40 / min(a, b, 1.0) / width)
        u = np.linspace(-reach, reach, 1 + 2 * math.ceil(40 * reach))
        logit = middle + width * np.sinh(u)
        log_p, log_q = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        log_weight = a * log_p + b * log_q + np.log(np.cosh(u))
        weight = np.exp(log_weight - log_weight.max())
        estimate = self._posterior_value(a, b, low, high)
        distance = self._value(log_p, log_q, low, high) - estimate
        return float(np.sqrt(np.average(distance**2, weights=weight)))

    def _by_moments(self, rewards_PN: Floats, fit_PN: Floats) -> tuple[Floats, Floats, Floats]:
        """V* by the moments of `fit_PN`, its error, and the samples that what is known is worth.

        A problem may have no sample.
        """
        top = float(np.nanmax(fit_PN))
        mean, within, between = _moments(self._z(fit_PN, top))
        z_PN, count_P = self._z(rewards_PN, top), (~np.isnan(rewards_PN)).sum(axis=1)
        some_P = np.maximum(count_P, 1)
        mean_P = np.where(count_P > 0, np.nansum(z_PN, axis=1) / some_P, mean)
        weight_P = between / (between + within / some_P) if between else np.zeros(len(count_P))
        shrunk_P = mean + weight_P * (mean_P - mean)
        error_P = np.sqrt(weight_P * within / some_P)
        worth_P = count_P + (within / between if between else math.inf)
        if math.isinf(self.beta1):
            return shrunk_P, error_P, worth_P
        return top + self.beta1 * np.log(shrunk_P), self.beta1 * error_P / shrunk_P, worth_P

    def _z(self, rewards_PN: Floats, top: float) -> Floats:
        """exp(r / beta_1), up to a factor by which none is above 1; r at beta_1 = inf."""
        if math.isinf(self.beta1):
            return rewards_PN
        return np.exp((rewards_PN - top) / self.beta1)


def fit_beta_prior(right_P: np.ndarray, count_P: np.ndarray) -> Beta:
    """Fits how success rates are spread over problems, from k of n successes of each.

    The mean a / (a + b) and rho = 1 / (1 + a + b) hardly depend on one another, so each in turn is
    set to its best until both stay.

    Args:
        right_P: [P] successes.
        count_P: [P] samples, at least one each.
    """
    pairs, times = np.unique(np.stack([right_P, count_P], axis=1), axis=0, return_counts=True)
    counted = [(k, n, t) for (k, n), t in zip(pairs.tolist(), times.tolist(), strict=True)]

    def fitness(mean_logit: float, rho_logit: float) -> float:
        prior = _prior(mean_logit, rho_logit)
        mean, rho = _sigmoid(mean_logit), _sigmoid(rho_logit)
        start = _log_beta(*prior)
        return (
            sum(t * (_log_beta(k + prior.a, n - k + prior.b) - start) for k, n, t in counted)
            + 0.5 * math.log(mean * (1 - mean))
            + math.log(1 - rho)
        )

    smoothed = (right_P.sum() + 0.5) / (count_P.sum() + 1)
    mean_logit, rho_logit = math.log(smoothed / (1 - smoothed)), 0.0
    for _ in range(_SWEEPS):
        rho_logit = _argmax(lambda x: fitness(mean_logit, x), *_RHO_LOGITS)  # noqa: B023
        mean_logit = _argmax(lambda x: fitness(x, rho_logit), *_MEAN_LOGITS)  # noqa: B023
    return _prior(mean_logit, rho_logit)


def chance_of_all(a: float, b: float, num_samples: int = FURTHER_SAMPLES) -> float:
    """Probability that so many samples of a problem all succeed where p ~ Beta(a, b)."""
    return math.exp(_log_beta(a + num_samples, b) - _log_beta(a, b))


def _levels(rewards_PN: Floats) -> tuple[float, ...]:
    """The different rewards, rising; 0 and 1 also where there are only the one or the other."""
    found = tuple(np.unique(rewards_PN[~np.isnan(rewards_PN)]).tolist())
    return (0.0, 1.0) if set(found) <= {0.0, 1.0} else found


def _counts(rewards_PN: Floats, high: float) -> NDArray[np.int64]:
    """[P, 2]: successes and samples."""
    right_P, count_P = (rewards_PN == high).sum(axis=1), (~np.isnan(rewards_PN)).sum(axis=1)
    return np.stack([right_P, count_P], axis=1)


def _fit(rewards_PN: Floats, high: float) -> Beta:
    return fit_beta_prior(*_counts(rewards_PN, high).T)


def _posteriors(
    rewards_PN: Floats, high: float, prior: Beta | None = None
) -> tuple[list[Beta], NDArray[np.int64]]:
    """What is known of success rates: the different posteriors, and which is each problem's."""
    prior = prior or _fit(rewards_PN, high)
    counts_P2 = _counts(rewards_PN, high)
    pairs, place_P = np.unique(counts_P2, axis=0, return_inverse=True)
    posteriors = [Beta(k + prior.a, n - k + prior.b) for k, n in pairs.tolist()]
    return posteriors, place_P.ravel()


def _moments(z_PN: Floats) -> tuple[float, float, float]:
    """Mean, variance within problems, and that between them beyond what the former explains."""
    count_P = (~np.isnan(z_PN)).sum(axis=1)
    num_problems, total = len(count_P), count_P.sum()
    mean_P, mean = np.nansum(z_PN, axis=1) / count_P, float(np.nansum(z_PN) / total)
    if total == num_problems:
        return mean, 0.0, 0.0
    within = float(np.nansum((z_PN - mean_P[:, None]) ** 2) / (total - num_problems))
    spread = float((count_P * (mean_P - mean) ** 2).sum()) - (num_problems - 1) * within
    between = max(0.0, spread / float(total - (count_P**2).sum() / total or 1.0))
    return mean, within, between


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
