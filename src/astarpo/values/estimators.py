r"""V* of each problem from the rewards of its N samples of the reference policy (stage 1).

    V*(x) = beta_1 ln E_{y ~ pi_ref}[exp(r(x, y) / beta_1)]      the optimum, in closed form
    V^(x) = beta_1 ln( (1/N) sum_i exp(r_i / beta_1) )           its estimate from N samples

Source: arXiv 2505.20686, section 3, with N = 8 and beta_1 = 0.5. Deviations from the paper: none.
Beside the paper there are a standard error of the estimate (the jackknife's), and the two limits,
which are taken exactly: beta_1 = inf is the mean of the rewards, beta_1 = 0 their maximum.

Shapes: _P problems, _N samples of one problem.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas

Floats = NDArray[np.float64]


def optimal_values(rewards: ArrayLike, beta: float) -> Floats:
    """Estimates V* from sampled rewards: the paper's V^.

    Args:
        rewards: [P, N] rewards of N samples for each of P problems (or [N], for one problem).
        beta: The paper's beta_1, from 0 (the maximum) to inf (the mean).

    Returns:
        [P] estimates (a 0-d array for one problem), never below the mean nor above the maximum.

    Raises:
        ValueError: beta is negative or NaN, a reward is not finite, or there is no sample.

    Example:
        >>> optimal_values([[1, 0, 0, 0], [1, 1, 1, 1]], beta=0.5).round(3).tolist()
        [0.477, 1.0]
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


class ValueEstimate(NamedTuple):
    """The estimate of V* of each problem, and how far it may be off.

    Attributes:
        v_star_P: [P], in units of reward.
        standard_error_P: [P], in units of reward; NaN where it is not known.
    """

    v_star_P: Floats
    standard_error_P: Floats


def value_estimates(rewards: ArrayLike, beta: float) -> ValueEstimate:
    """Estimates V* with its standard error, by the jackknife.

    The standard error is the root of (N - 1) / N times the sum over i of the squared deviations of
    V^ without sample i. At beta = inf that is the mean's, sd / sqrt(N). The delta method would give
    a fifth less at N = 8, beta = 0.5 where one sample in twenty succeeds. Where all N rewards are
    equal it is 0: the sample shows no spread, no more than that. It is NaN with a single sample,
    and at beta = 0, where the estimate is a maximum, which has no such error.

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


class Estimator(ABC):
    """A way to estimate V* of many problems from their rewards.

    It sees all problems at once, so that it may learn from the others about each. An estimator is a
    frozen dataclass: its text, such as `Plugin(beta1=0.5)`, is written beside its values.

    Example:
        >>> @dataclass(frozen=True)
        ... class BestOfN(Estimator):
        ...     def estimate(self, rewards_PN):
        ...         best_P = np.nanmax(rewards_PN, axis=1)
        ...         return ValueEstimate(best_P, np.full_like(best_P, np.nan))
    """

    @abstractmethod
    def estimate(self, rewards_PN: Floats) -> ValueEstimate:
        """Estimates V* of each problem.

        Args:
            rewards_PN: [P, N], NaN where a problem has no such sample; each has at least one.

        Raises:
            ValueError: A problem has no sample, or a reward is infinite.
        """

    def left_out(self, rewards_PN: Floats, number: int) -> Floats:
        """Estimates V* of each problem without one of its samples, so as to learn from that one.

        Args:
            rewards_PN: As in `estimate`.
            number: Of the sample that is left out, from 0.

        Returns:
            [P] estimates.

        Raises:
            ValueError: A problem has no other sample, and the estimator needs one.
        """
        return self.estimate(without(rewards_PN, number)).v_star_P

    def errors_after(self, rewards_PN: Floats, more_P: ArrayLike) -> Floats:
        """The standard errors that are to be expected after more samples.

        Unless an estimator knows better, they fall as one over the root of the number of samples.

        Args:
            rewards_PN: As in `estimate`.
            more_P: [P] or one number: samples more of each problem.

        Returns:
            [P], NaN where `estimate` gives none.
        """
        count_P = (~np.isnan(rewards_PN)).sum(axis=1)
        share_P = count_P / (count_P + np.asarray(more_P))
        return self.estimate(rewards_PN).standard_error_P * np.sqrt(share_P)

    def extremes(self, rewards_PN: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which problems are taken to be never solved, and which always, for filters.

        Unless an estimator knows better, those of whose samples none has a reward above 0, and
        those of whose samples none has one below 1.

        Args:
            rewards_PN: As in `estimate`.

        Returns:
            [P] never solved, [P] always.
        """
        lowest_P, highest_P = _range(rewards_PN)
        return highest_P <= 0, lowest_P >= 1


@dataclass(frozen=True)
class Plugin(Estimator):
    """The paper's estimator: the closed form with the samples in place of the expectation.

    Attributes:
        beta1: From 0 (the maximum) to inf (the mean).
    """

    beta1: float

    def estimate(self, rewards_PN: Floats) -> ValueEstimate:
        """See the equation at the head of this file; problems of equal N go together."""
        sampled_PN = ~np.isnan(rewards_PN)
        num_samples_P = sampled_PN.sum(axis=1)
        found_2P = np.full((2, len(rewards_PN)), np.nan)
        for count in np.unique(num_samples_P):
            chosen_P = num_samples_P == count
            group_PN = rewards_PN[chosen_P][sampled_PN[chosen_P]].reshape(chosen_P.sum(), count)
            found_2P[:, chosen_P] = value_estimates(group_PN, self.beta1)
        return ValueEstimate(*found_2P)


class ProblemValues(NamedTuple):
    """What the samples of each problem say of it, before any filter.

    Attributes:
        estimator: What V* was estimated by.
        v_star_P: [P] the estimate of V*, in units of reward.
        standard_error_P: [P] of the estimate, as in `ValueEstimate`.
        num_samples_P: [P] how many samples it is from.
        mean_P: [P] mean reward.
        lowest_P: [P] least reward.
        highest_P: [P] greatest reward.
        all_wrong_P: [P] whether the problem is taken to be never solved, and
        all_right_P: [P] always; see `Estimator.extremes`.
        problem_ids: The problems, in order, where a value table found them; else empty.

    Example:
        >>> problem_values([[1, 0], [1, 1]], Plugin(beta1=0.5)).to_pandas()["v_star"].round(3)
        0    0.717
        1    1.000
        Name: v_star, dtype: float64
    """

    estimator: Estimator
    v_star_P: Floats
    standard_error_P: Floats
    num_samples_P: NDArray[np.int64]
    mean_P: Floats
    lowest_P: Floats
    highest_P: Floats
    all_wrong_P: NDArray[np.bool_]
    all_right_P: NDArray[np.bool_]
    problem_ids: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """Columns by name, those of `values.parquet` first; what `to_pandas` makes its frame of."""
        ids = {"problem_id": list(self.problem_ids)} if self.problem_ids else {}
        return ids | {
            "n": self.num_samples_P,
            "mean_reward": self.mean_P,
            "v_star": self.v_star_P,
            "v_star_se": self.standard_error_P,
            "all_wrong": self.all_wrong_P,
            "all_right": self.all_right_P,
        }

    def to_pandas(self) -> "pandas.DataFrame":
        """The columns as a data frame, one row a problem."""
        import pandas

        return pandas.DataFrame(self.columns())

    def __repr__(self) -> str:
        return (
            f"<V* of {len(self.mean_P)} problems by {self.estimator}: mean "
            f"{np.mean(self.v_star_P):.3f}, mean reward {np.mean(self.mean_P):.3f}; "
            "to_pandas() for the rows>"
        )


def problem_values(rewards: ArrayLike, estimator: Estimator) -> ProblemValues:
    """V* of problems, which need not have equally many samples, and what else their rewards say.

    Args:
        rewards: [P, N], NaN where a problem has no such sample; each has at least one.
        estimator: How V* is estimated.

    Raises:
        ValueError: As in `Estimator.estimate`.
    """
    rewards_PN = np.asarray(rewards, dtype=np.float64)
    v_star_P, error_P = estimator.estimate(rewards_PN)
    wrong_P, right_P = estimator.extremes(rewards_PN)
    lowest_P, highest_P = _range(rewards_PN)
    num_samples_P = (~np.isnan(rewards_PN)).sum(axis=1)
    return ProblemValues(
        estimator=estimator,
        v_star_P=v_star_P,
        standard_error_P=error_P,
        num_samples_P=num_samples_P,
        mean_P=np.nansum(rewards_PN, axis=1) / num_samples_P,
        lowest_P=lowest_P,
        highest_P=highest_P,
        all_wrong_P=wrong_P,
        all_right_P=right_P,
    )


def without(rewards_PN: Floats, number: int) -> Floats:
    """[P, N]: the rewards with NaN in the place of each problem's sample of that number."""
    return np.where(np.arange(rewards_PN.shape[1]) == number, np.nan, rewards_PN)


def _range(rewards_PN: Floats) -> tuple[Floats, Floats]:
    """[P] least and greatest reward of each problem; there may be no problem at all."""
    there_PN = ~np.isnan(rewards_PN)
    lowest_P = rewards_PN.min(axis=1, where=there_PN, initial=math.inf)
    return lowest_P, rewards_PN.max(axis=1, where=there_PN, initial=-math.inf)
