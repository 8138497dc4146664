"""V* without one sample, for rollouts of stage 1."""

import math

import numpy as np
import pytest

from astarpo.values.controls import Constant, Zero
from astarpo.values.estimators import Plugin
from astarpo.values.shrinkage import Shrunk, fit_beta_prior

NAN = math.nan
REWARDS = np.array([[1.0, 0, 0, 1], [0, 0, NAN, NAN], [1, 1, 1, NAN]])


@pytest.mark.parametrize("beta1", [0.0, 0.5, math.inf])
@pytest.mark.parametrize("number", [0, 3])
def test_plugin_takes_the_others_alone(beta1, number):
    plugin = Plugin(beta1)
    found = plugin.left_out(REWARDS, number)
    for i, row in enumerate(REWARDS):
        others = [r for j, r in enumerate(row) if j != number and not math.isnan(r)]
        assert found[i] == pytest.approx(plugin.estimate(np.array([others])).v_star_P[0])


def test_plugin_needs_another_sample():
    with pytest.raises(ValueError, match="need a sample a problem"):
        Plugin(0.5).left_out(REWARDS[:, :1], 0)
    assert Zero(0.5).left_out(REWARDS[:, :1], 0).tolist() == [0, 0, 0]


def test_constant_takes_the_others_of_all_problems():
    assert Constant(math.inf).left_out(REWARDS, 0) == pytest.approx([3 / 6] * 3)


def test_shrunk_has_the_prior_of_all_and_the_counts_of_the_others():
    a, b = fit_beta_prior(np.array([2, 0, 3]), np.array([4, 2, 3]))
    found = Shrunk(math.inf).left_out(REWARDS, 0)
    expected = [(1 + a) / (3 + a + b), a / (1 + a + b), (2 + a) / (2 + a + b)]
    assert found == pytest.approx(expected)
    at_half = Shrunk(0.5).left_out(REWARDS, 0)
    assert at_half == pytest.approx(0.5 * np.log1p(np.array(expected) * math.expm1(2.0)))


def test_shrunk_does_with_one_sample():
    rewards = np.array([[1.0], [0.0], [1.0], [1.0]])
    found = Shrunk(math.inf).left_out(rewards, 0)
    assert found == pytest.approx(Shrunk(math.inf).estimate(rewards).v_star_P, abs=1e-4)


def test_shrunk_by_moments_has_the_spread_of_all_and_the_mean_of_the_others():
    rewards = np.array([[0.0, 0.5, 1.0], [2.0, 2.5, NAN], [1.0, NAN, NAN]])
    # m = 7/6; within = (.5 + .125) / 3; between, by the equation of analysis of variance.
    mean, within = 7 / 6, 0.625 / 3
    spread = 3 * (0.5 - mean) ** 2 + 2 * (2.25 - mean) ** 2 + (1 - mean) ** 2 - 2 * within
    between = spread / (6 - (9 + 4 + 1) / 6)
    expected = [
        mean + between / (between + within / n) * (m - mean) for m, n in ((0.75, 2), (2.5, 1))
    ]
    assert Shrunk(math.inf).left_out(rewards, 0) == pytest.approx([*expected, mean])


def test_it_is_unbiased_where_the_estimate_is_not():
    # Over many problems of one rate, own samples pull V* towards themselves; the others do not.
    rng = np.random.Generator(np.random.Philox(key=1))
    rewards = (rng.random((20_000, 4)) < 0.3).astype(float)
    own = rewards[:, 0] - Plugin(math.inf).estimate(rewards).v_star_P
    out = rewards[:, 0] - Plugin(math.inf).left_out(rewards, 0)
    assert np.mean(own * rewards[:, 0]) == pytest.approx(0.75 * 0.21, abs=0.006)
    assert np.mean(out * rewards[:, 0]) == pytest.approx(0.21, abs=0.006)
