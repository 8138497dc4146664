"""What stays open of the prior is part of the stated error: by other sums, and by trial."""

import math

import numpy as np
import pytest

from astarpo.values.prior import fit_beta_prior, moment_errors, weigh_priors
from astarpo.values.shrinkage import Shrunk


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@pytest.mark.parametrize(
    "counts",
    [
        [(1, 2)],
        [(2, 2), (0, 2), (1, 2)],
        [(1, 2)] * 6,
        [(0, 4), (4, 4), (3, 4), (0, 4), (1, 3)],
        [(0, 2)] * 5,
        [(1, 1), (5, 6), (0, 1)],
    ],
)
def test_what_is_known_is_the_mean_over_all_priors(counts):
    # The same integral by midpoints of m and rho themselves. Equal steps of the angle whose squared
    # sine is m have half a success and half a failure as their density.
    angle_X, rho_Y = (np.arange(60) + 0.5) / 60 * math.pi / 2, (np.arange(200) + 0.5) / 200
    moments_3P = np.zeros((3, len(counts)))
    for mean in (np.sin(angle_X) ** 2).tolist():
        for rho in rho_Y.tolist():
            a, b = mean * (1 / rho - 1), (1 - mean) * (1 / rho - 1)
            log = sum(log_beta(k + a, n - k + b) - log_beta(a, b) for k, n in counts)
            weight = math.exp(log) * (1 - rho)
            for i, (k, n) in enumerate(counts):
                x, both = k + a, n + a + b
                terms = 1, x / both, x * (x + 1) / (both * (both + 1))
                moments_3P[:, i] += weight * np.array(terms)
    _, mean_P, square_P = moments_3P / moments_3P[0]
    priors = weigh_priors(*np.transpose(counts))
    a_P, b_P = np.transpose([priors.known(k, n) for k, n in counts])
    assert a_P / (a_P + b_P) == pytest.approx(mean_P, rel=0.01)
    found_P = a_P * (a_P + 1) / ((a_P + b_P) * (a_P + b_P + 1))
    assert found_P == pytest.approx(square_P, rel=0.01)


def test_what_is_known_of_many_problems_is_what_the_likeliest_prior_says():
    rng = np.random.default_rng(0)
    count_P = rng.integers(1, 9, 40_000)
    right_P = rng.binomial(count_P, rng.beta(1.5, 2.5, 40_000))
    a, b = fit_beta_prior(right_P, count_P)
    priors = weigh_priors(right_P, count_P)
    assert priors.weight_G.sum() == pytest.approx(1)
    for k, n in ((0, 1), (1, 2), (8, 8), (3, 8)):
        assert priors.known(k, n) == pytest.approx((k + a, n - k + b), rel=0.01)


@pytest.mark.parametrize("right", [0, 1, 2])
def test_no_counts_are_too_few_or_too_alike(right):
    for num_problems in (1, 2, 24, 3000):
        rewards_PN = np.tile(np.arange(2) < right, (num_problems, 1)).astype(float)
        found = Shrunk(0.5).estimate(rewards_PN)
        assert np.isfinite(found.standard_error_P).all()
        assert (found.standard_error_P > 0).all()


def test_24_problems_that_look_alike_are_not_known_to_be():
    # Of two samples 13 problems have one right, 5 none, 6 both: no more unlike than by chance.
    rewards_PN = np.repeat([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]], [13, 5, 6], axis=0)
    a, b = fit_beta_prior(rewards_PN.sum(axis=1).astype(int), np.full(24, 2))
    assert a + b > 1e5  # the likeliest prior has no spread
    error_P = Shrunk(math.inf).estimate(rewards_PN).standard_error_P
    assert ((error_P > 0.1) & (error_P < 0.25)).all()  # it was 0.001


def test_errors_of_means_are_those_over_all_spreads():
    # Two problems of two samples, as in the closed form of `test_other_rewards_by_moments`.
    mean_P, value_P, within = np.array([1.0, 5.0]), np.array([1.25, 4.75]), 2.0
    total, squared_P = 0.0, np.zeros(2)
    for rho in ((np.arange(4000) + 0.5) / 4000).tolist():
        between = within * rho / (1 - rho)
        variance = (
            between + within / 2
        )  # of a problem's mean about that of all, which is 3 +- its root
        weight = (1 - rho) * math.exp(-(4 + 4) / (2 * variance)) / math.sqrt(variance)
        share = between / variance
        distance_P = 3 + share * (mean_P - 3) - value_P
        total += weight
        squared_P += weight * (share * within / 2 + (1 - share) ** 2 * variance / 2 + distance_P**2)
    found_P = moment_errors(mean_P, np.array([2, 2]), within, value_P)
    assert found_P == pytest.approx(squared_P / total, rel=1e-3)
    stated_P = Shrunk(math.inf).estimate(np.array([[0.0, 2.0], [4.0, 6.0]])).standard_error_P
    assert stated_P == pytest.approx(np.sqrt(found_P))


_SHAPES = {
    "demo": lambda rng, count: rng.beta(3.2, 4.24, count),
    "uniform": lambda rng, count: rng.uniform(size=count),
    "u-shaped": lambda rng, count: rng.beta(0.4, 0.4, count),
    "alike": lambda rng, count: np.full(count, 0.43),
}


def trial(shape: str, num_problems: int, num_samples: int, num_sets: int) -> tuple[float, float]:
    """Root mean squares over many problem sets: of the stated error, and of the true one."""
    rng, squares = np.random.default_rng(0), []
    for _ in range(num_sets):
        rate_P = _SHAPES[shape](rng, num_problems)
        rewards_PN = (rng.random((num_problems, num_samples)) < rate_P[:, None]).astype(float)
        found = Shrunk(math.inf).estimate(rewards_PN)
        true_P = (found.v_star_P - rate_P) ** 2
        squares.append(((found.standard_error_P**2).mean(), true_P.mean()))
    stated, true = np.sqrt(np.mean(squares, axis=0)).tolist()
    return stated, true


@pytest.mark.parametrize(
    ("num_problems", "num_sets", "low", "high"),
    [(24, 40, 0.85, 1.1), (200, 10, 0.9, 1.1), (2000, 4, 0.95, 1.05)],
)
@pytest.mark.parametrize("num_samples", [2, 4, 8])
@pytest.mark.parametrize("shape", ["demo", "uniform", "u-shaped"])
def test_the_stated_error_is_the_true_one_over_many_problem_sets(
    shape, num_samples, num_problems, num_sets, low, high
):
    stated, true = trial(shape, num_problems, num_samples, num_sets)
    assert low < stated / true < high


@pytest.mark.parametrize("num_samples", [2, 8])
def test_of_problems_all_alike_more_is_stated_but_less_the_more_there_are(num_samples):
    # No samples can show that there is no difference at all, only that there is little.
    found = [
        trial("alike", *each)
        for each in ((24, num_samples, 20), (200, num_samples, 5), (2000, num_samples, 2))
    ]
    plugin = math.sqrt(0.43 * 0.57 / num_samples)
    stated = [each for each, _ in found]
    assert all(error < each < 0.6 * plugin for each, error in found)
    assert stated == sorted(stated, reverse=True)
    assert stated[-1] < 0.25 * plugin


def test_from_one_sample_each_no_error_is_stated():
    assert math.isnan(trial("uniform", 24, 1, 1)[0])
