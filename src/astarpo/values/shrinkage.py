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

The error beside each value counts that other a, b and tau^2 would explain the samples nearly as
well (`values.prior`); the value itself is that of the likeliest.

Source: empirical Bayes for binomial rates (Griffiths 1973, Biometrics 29) and for means (Efron and
Morris 1975, JASA 70). Deviations: those of the fit, in `values.prior`. With one sample a problem
nothing tells how problems differ: they are then taken as alike, and the error is not known.

Shapes: _P problems, _N samples of one problem.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astarpo.values.estimators import Estimator, Floats, ValueEstimate, without
from astarpo.values.prior import (
    Beta,
    chance_of_all,
    fit_beta_prior,
    moment_errors,
    weigh_priors,
)


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
        known of the problem, how problems differ being known as far as the samples of all show it;
        NaN where every problem has one sample, which does not show that at all.
        """
        squared_P, _ = self.knowledge(rewards_PN)
        if (~np.isnan(rewards_PN)).sum(axis=1).max(initial=1) == 1:
            squared_P = np.full_like(squared_P, np.nan)
        return ValueEstimate(self._values(rewards_PN, rewards_PN), np.sqrt(squared_P))

    def left_out(self, rewards_PN: Floats, number: int) -> Floats:
        """With the fit to all samples: one of so many does not sway it, and one alone will do."""
        return self._values(without(rewards_PN, number), rewards_PN)

    def extremes(self, rewards_PN: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """By what is known of a problem, not by one unlucky sample; see `FURTHER_SAMPLES`."""
        if _levels(rewards_PN) != (0.0, 1.0):
            return super().extremes(rewards_PN)
        a, b = _fit(rewards_PN, 1.0)
        pairs, place_P = _different(rewards_PN, 1.0)
        never = np.array([chance_of_all(n - k + b, k + a) >= 0.5 for k, n in pairs], dtype=bool)
        always = np.array([chance_of_all(k + a, n - k + b) >= 0.5 for k, n in pairs], dtype=bool)
        return never[place_P], always[place_P]

    def knowledge(self, rewards_PN: Floats) -> tuple[Floats, Floats]:
        """How surely each problem is known.

        Args:
            rewards_PN: As in `estimate`.

        Returns:
            [P] the mean squared distance of V* from its estimate by what is known of the problem,
            and [P] how many samples that is worth: a + b of the Beta distribution that describes
            it, or sigma^2 over its variance.
        """
        levels = _levels(rewards_PN)
        if len(levels) != 2:
            return self._moment_knowledge(rewards_PN)
        pairs, place_P = _different(rewards_PN, levels[1])
        priors, likeliest = (
            weigh_priors(*_counts(rewards_PN, levels[1]).T),
            _fit(rewards_PN, levels[1]),
        )
        found = []
        for k, n in pairs:
            known = priors.known(k, n)
            estimate = self._posterior_value(k + likeliest.a, n - k + likeliest.b, *levels)
            found.append((self._distance(known, estimate, *levels) ** 2, sum(known)))
        squared_P, worth_P = np.array(found).reshape(-1, 2)[place_P].T
        return squared_P, worth_P

    def errors_after(self, rewards_PN: Floats, more_P: ArrayLike) -> Floats:
        """By what all samples so far are worth; see `values.rounds` for the law."""
        if (~np.isnan(rewards_PN)).sum(axis=1).max(initial=1) == 1:
            return np.full(len(rewards_PN), np.nan)
        squared_P, worth_P = self.knowledge(rewards_PN)
        return np.sqrt(squared_P / (1 + np.asarray(more_P) / worth_P))

    def _values(self, rewards_PN: Floats, fit_PN: Floats) -> Floats:
        """V* by the prior or the moments of `fit_PN`; a problem may have no sample."""
        levels = _levels(fit_PN)
        if len(levels) != 2:
            return self._moment_values(rewards_PN, fit_PN)
        a, b = _fit(fit_PN, levels[1])
        pairs, place_P = _different(rewards_PN, levels[1])
        return np.array([self._posterior_value(k + a, n - k + b, *levels) for k, n in pairs])[
            place_P
        ]

    def _posterior_value(self, a: float, b: float, low: float, high: float) -> float:
        """The estimate where p ~ Beta(a, b): V* at the mean of p."""
        return float(self._value(math.log(a / (a + b)), math.log(b / (a + b)), low, high))

    def _value(self, log_p: Any, log_q: Any, low: float, high: float) -> Any:
        """V* at a success rate p, given by ln p and ln(1 - p)."""
        if math.isinf(self.beta1):
            return low + (high - low) * np.exp(log_p)
        return low + self.beta1 * np.logaddexp(log_q, log_p + (high - low) / self.beta1)

    def _distance(self, known: Beta, estimate: float, low: float, high: float) -> float:
        """Root mean square distance of V* from an estimate where p ~ Beta(a, b).

        By the trapezium rule over the logit, with steps that grow towards both tails.
        """
        a, b = known
        middle, width = math.log(a / b), min(1.0, math.sqrt(1 / a + 1 / b))
        reach = math.asinh(40 / min(a, b, 1.0) / width)
        u = np.linspace(-reach, reach, 1 + 2 * math.ceil(40 * reach))
        logit = middle + width * np.sinh(u)
        log_p, log_q = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        log_weight = a * log_p + b * log_q + np.log(np.cosh(u))
        weight = np.exp(log_weight - log_weight.max())
        distance = self._value(log_p, log_q, low, high) - estimate
        return float(np.sqrt(np.average(distance**2, weights=weight)))

    def _moment_values(self, rewards_PN: Floats, fit_PN: Floats) -> Floats:
        top = float(np.nanmax(fit_PN))
        shrunk_P = _shrunk_means(self._z(rewards_PN, top), self._z(fit_PN, top))
        return shrunk_P if math.isinf(self.beta1) else top + self.beta1 * np.log(shrunk_P)

    def _moment_knowledge(self, rewards_PN: Floats) -> tuple[Floats, Floats]:
        z_PN = self._z(rewards_PN, float(np.nanmax(rewards_PN)))
        count_P = (~np.isnan(z_PN)).sum(axis=1)
        _, within, _ = _moments(z_PN)
        if within == 0:
            return np.zeros(len(z_PN)), count_P.astype(float)
        shrunk_P = _shrunk_means(z_PN, z_PN)
        mean_P = np.nansum(z_PN, axis=1) / count_P
        squared_P = moment_errors(mean_P, count_P, within, shrunk_P)
        slope_P = np.ones(len(z_PN)) if math.isinf(self.beta1) else self.beta1 / shrunk_P
        return squared_P * slope_P**2, within / squared_P

    def _z(self, rewards_PN: Floats, top: float) -> Floats:
        """exp(r / beta_1), up to a factor by which none is above 1; r at beta_1 = inf."""
        if math.isinf(self.beta1):
            return rewards_PN
        return np.exp((rewards_PN - top) / self.beta1)


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


def _different(rewards_PN: Floats, high: float) -> tuple[list[list[int]], NDArray[np.int64]]:
    """The different numbers of successes and samples, and which are each problem's."""
    pairs, place_P = np.unique(_counts(rewards_PN, high), axis=0, return_inverse=True)
    return pairs.tolist(), place_P.ravel()


def _shrunk_means(z_PN: Floats, fit_PN: Floats) -> Floats:
    """z^ by the moments of `fit_PN`; a problem may have no sample."""
    mean, within, between = _moments(fit_PN)
    count_P = (~np.isnan(z_PN)).sum(axis=1)
    some_P = np.maximum(count_P, 1)
    mean_P = np.where(count_P > 0, np.nansum(z_PN, axis=1) / some_P, mean)
    weight_P = between / (between + within / some_P) if between else np.zeros(len(count_P))
    return mean + weight_P * (mean_P - mean)


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
