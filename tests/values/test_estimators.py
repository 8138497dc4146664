import math

import numpy as np
import pytest

from astarpo import optimal_values
from astarpo.values.estimators import value_estimates

PAPER_TABLE = [0, 0.29351, 0.47723, 0.61128, 0.71689, 0.80403, 0.87822, 0.94281, 1]


def binary(num_right: int, num_samples: int = 8) -> list[float]:
    return [1.0] * num_right + [0.0] * (num_samples - num_right)


def test_exact_table_for_binary_rewards():
    values = optimal_values([binary(k) for k in range(9)], beta=0.5)
    assert values == pytest.approx(PAPER_TABLE, abs=6e-6)


@pytest.mark.parametrize("beta", [1e-300, 1e-8, 1e-3, 0.1, 0.5, 2.0, 1e6, math.inf])
def test_between_mean_and_maximum(beta):
    rewards = np.random.default_rng(0).normal(size=(50, 8))
    values = optimal_values(rewards, beta)
    assert np.isfinite(values).all()
    assert (values >= rewards.mean(axis=1) - 1e-12).all()
    assert (values <= rewards.max(axis=1) + 1e-12).all()


def test_falls_as_beta_rises():
    betas = [0.0, 1e-6, 0.01, 0.125, 0.5, 2.0, 100.0, math.inf]
    values = [float(optimal_values(binary(3), beta)) for beta in betas]
    assert values == sorted(values, reverse=True)


def test_limits():
    rewards = [[0.0, 1.0, 3.0], [-2.0, -1.0, -1.0]]
    assert optimal_values(rewards, 0) == pytest.approx([3, -1])
    assert optimal_values(rewards, math.inf) == pytest.approx([4 / 3, -4 / 3])
    assert optimal_values(rewards, 1e12) == pytest.approx([4 / 3, -4 / 3], abs=1e-9)
    assert optimal_values(rewards, 1e-6) == pytest.approx([3, -1], abs=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.01, 0.5, math.inf])
def test_shift(beta):
    rewards = np.random.default_rng(1).random((20, 4))
    shifted = optimal_values(rewards + 1000.0, beta)
    assert shifted == pytest.approx(optimal_values(rewards, beta) + 1000.0, abs=1e-9)


def test_no_overflow_with_large_rewards_and_small_beta():
    assert optimal_values([1e6, -1e6], 1e-3) == pytest.approx(1e6)


def test_expectation_is_below_v_star_and_rises_with_samples():
    # Jensen: exactly, by summing over the binomial distribution of right answers.
    p, beta = 0.3, 0.5
    v_star = beta * math.log(1 - p + p * math.exp(1 / beta))
    means = []
    for n in (1, 2, 4, 8, 32):
        chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        estimates = optimal_values([binary(k, n) for k in range(n + 1)], beta)
        means.append(float(np.dot(chances, estimates)))
    assert means == sorted(means)
    assert means[0] == pytest.approx(p)
    assert means[-1] < v_star
    assert means[-1] == pytest.approx(v_star, abs=0.02)


@pytest.mark.parametrize("beta", [0.5, 2.0, math.inf])
def test_standard_error_by_simulation(beta):
    rewards = (np.random.default_rng(2).random((4000, 64)) < 0.4).astype(float)
    estimates, errors = value_estimates(rewards, beta)
    assert errors.mean() == pytest.approx(estimates.std(), rel=0.05)


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0, math.inf])
@pytest.mark.parametrize("chance", [0.02, 0.05, 0.1, 0.2])
def test_standard_error_of_few_samples_where_successes_are_rare(beta, chance):
    """Exactly: the root mean square over all outcomes of 8 samples, against the true deviation.

    By the delta method it would be .79 of it at beta = .5 and a chance of .05.
    """
    chances = np.array([math.comb(8, k) * chance**k * (1 - chance) ** (8 - k) for k in range(9)])
    estimates, errors = value_estimates([binary(k) for k in range(9)], beta)
    mean = chances @ estimates
    deviation = math.sqrt(chances @ (estimates - mean) ** 2)
    assert math.sqrt(chances @ errors**2) == pytest.approx(deviation, rel=0.16)


def test_standard_error_by_hand():
    # One success of two: V^ is .5 ln((1 + e^2) / 2) = .7169; without one of them 0 or 1.
    assert value_estimates([1.0, 0.0], 0.5) == pytest.approx((0.71689, 0.5), abs=1e-5)
    # The mean of 0, 0, 1: sd / sqrt(3) with sd = sqrt(1/3).
    assert value_estimates([0.0, 0.0, 1.0], math.inf).standard_error_P == pytest.approx(1 / 3)


def test_standard_error_edges():
    assert value_estimates(binary(0), 0.5).standard_error_P == pytest.approx(0, abs=1e-12)
    assert value_estimates([1.0, 0.0], 1e-6).standard_error_P == pytest.approx(0.5)
    assert math.isnan(value_estimates([1.0], 0.5).standard_error_P)
    assert math.isnan(value_estimates([1.0, 0.0], 0).standard_error_P)


@pytest.mark.parametrize(
    ("rewards", "beta"),
    [([1.0], -0.1), ([1.0], math.nan), ([[], []], 0.5), ([math.inf, 0], 0.5), ([math.nan], 0.5)],
)
def test_refuses(rewards, beta):
    with pytest.raises(ValueError, match=r"beta|sample|finite"):
        optimal_values(rewards, beta)
