import json
import math

import numpy as np
import pytest

from astarpo.values.advice import Advice, advise, best_samples
from astarpo.values.estimators import Plugin
from astarpo.values.prior import Beta, fit_beta_prior, weigh_priors
from astarpo.values.shrinkage import Shrunk

NAN = math.nan


def draws(shape, num_problems: int, num_samples: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    rate_P = rng.beta(*shape, num_problems)
    return rate_P, (rng.random((num_problems, num_samples)) < rate_P[:, None]).astype(float)


def rms(errors) -> float:
    return float(np.sqrt((np.asarray(errors) ** 2).mean()))


def test_errors_after_more_samples_in_closed_form():
    rewards_PN = np.array([[1.0, 0, NAN], [0, 0, 0], [1, 1, 0], [0, NAN, NAN]])
    counts = np.array([1, 0, 2, 0]), np.array([2, 3, 3, 1])
    priors, estimate_P = weigh_priors(*counts), Shrunk(math.inf).estimate(rewards_PN).v_star_P
    x_P, y_P = np.transpose([priors.known(k, n) for k, n in zip(*counts, strict=True)])
    total_P = x_P + y_P
    squared_P = x_P * y_P / (total_P**2 * (total_P + 1)) + (x_P / total_P - estimate_P) ** 2
    for more in (0, 1, 7, np.array([1, 2, 3, 4])):
        expected_P = squared_P * total_P / (total_P + more)
        found_P = Shrunk(math.inf).errors_after(rewards_PN, more)
        assert found_P == pytest.approx(np.sqrt(expected_P), rel=1e-5)


@pytest.mark.parametrize(("beta", "precision"), [(0.5, 0.02), (0.25, 0.08), (math.inf, 1e-5)])
@pytest.mark.parametrize("num_more", [1, 2, 8])
def test_errors_after_more_samples_against_the_sum_over_what_they_may_be(beta, precision, num_more):
    estimator, log_beta = Shrunk(beta), math.lgamma
    rewards_PN = draws((0.6, 0.7), 40_000, 2)[1]
    priors = weigh_priors(rewards_PN.sum(axis=1).astype(int), np.full(40_000, 2))

    def log_chance(a, b, k):
        parts = log_beta(a + k) + log_beta(b + num_more - k) - log_beta(a + b + num_more)
        return parts - log_beta(a) - log_beta(b) + log_beta(a + b)

    found_P = estimator.errors_after(rewards_PN, num_more)
    for right in (0, 1, 2):
        a, b = priors.known(right, 2)
        expected = 0.0
        for k in range(num_more + 1):
            later = Beta(a + k, b + num_more - k)
            estimate = estimator._posterior_value(*later, 0.0, 1.0)
            error = estimator._distance(later, estimate, 0.0, 1.0)
            expected += math.comb(num_more, k) * math.exp(log_chance(a, b, k)) * error**2
        first = np.flatnonzero(rewards_PN.sum(axis=1) == right)[0]
        assert found_P[first] == pytest.approx(math.sqrt(expected), rel=precision)


@pytest.mark.parametrize("shape", [(3.2, 4.24), (1.0, 1.0), (0.4, 0.4)])
@pytest.mark.parametrize("kind", [Plugin, Shrunk])
def test_advice_comes_true(shape, kind):
    rate_P, rewards_PN = draws(shape, 6000, 8)
    estimator = kind(math.inf)
    advice = advise(rewards_PN[:, :4], estimator)
    for error, n in ((advice.error, 4), (advice.error_at_twice, 8)):
        true = rms(estimator.estimate(rewards_PN[:, :n]).v_star_P - rate_P)
        assert error == pytest.approx(true, rel=0.05)
    assert advice.unsolved == (rewards_PN[:, :4].sum(axis=1) == 0).mean()
    later = (rewards_PN.sum(axis=1) == 0).mean()
    assert advice.unsolved_at_twice == pytest.approx(later, abs=0.01)
    assert advice.prior == pytest.approx(shape, rel=0.15)


def test_what_stays_unsolved_in_closed_form():
    rewards_PN = np.array([[0.0, 0], [1, 0], [1, 1]])
    a, b = fit_beta_prior(np.array([0, 1, 2]), np.full(3, 2))
    stays = (b + 2) * (b + 3) / ((a + b + 2) * (a + b + 3))  # of Beta(a, b + 2), two more wrong
    assert advise(rewards_PN, Shrunk(0.5)).unsolved_at_twice == pytest.approx(stays / 3)


def test_other_rewards_have_an_error_too():
    # Variance 2 within, 3 between: 3 * 1 / (3 + 1) from 2 samples, 3 * .5 / (3 + .5) from 4. That
    # holds of many problems; of two, tests/values/test_prior.py has the sum that gives 1.127.
    advice = advise(np.array([[0.0, 2.0], [4.0, 6.0]] * 500), Shrunk(math.inf))
    assert advice.error == pytest.approx(math.sqrt(3 / 4), rel=0.003)
    assert advice.error_at_twice == pytest.approx(math.sqrt(3 / 7), rel=0.003)
    assert advice.prior is None
    assert math.isnan(advice.unsolved_at_twice)
    (line,) = advice.lines()
    assert line.endswith("with twice the samples 0.655; unsolved 0.0% of problems")


@pytest.mark.parametrize("estimator", [Plugin(0.5), Shrunk(0.5)])
def test_one_sample_each_tells_no_error(estimator):
    advice = advise(np.array([[1.0], [0.0], [0.0]]), estimator)
    assert advice.lines() == [
        "the error of V* is not known from these samples; unsolved 66.7% of problems"
    ]
    assert advice.facts() == {
        "error": None, "error_at_twice": None, "unsolved": 2 / 3, "unsolved_at_twice": None,
        "prior": None,
    }  # fmt: skip


def test_what_is_said_is_what_is_written():
    advice = Advice(0.1181, 0.0862, 0.125, 0.0961, Beta(3.2, 4.24))
    assert advice.lines() == [
        "error of V* 0.118 (root mean square, in units of reward), with twice the samples 0.086; "
        "unsolved 12.5% of problems, with twice the samples 9.6%",
        "success rates are spread like Beta(3.2, 4.2), worth 7.4 samples of each problem to "
        "estimator shrunk; rule of thumb for 25 passes of training: N = 1, with plugin 5",
    ]
    written = json.loads(json.dumps(advice.facts()))
    assert written["best_samples"] == {"passes": 25, "shrunk": 1, "plugin": 5}
    assert written["prior"] == [3.2, 4.24]


@pytest.mark.parametrize("prior_samples", [0.0, 0.8, 2.0, 7.4])
@pytest.mark.parametrize("passes", [2, 25, 100, 1000])
def test_the_rule_of_thumb_costs_least(passes, prior_samples):
    def cost(n):
        return (n + passes) * (1 + 1 / (prior_samples + n))

    best = best_samples(passes, prior_samples)
    exact = min(range(1, 100), key=cost)
    assert abs(best - exact) <= 1
    assert cost(best) <= 1.01 * cost(exact)


@pytest.mark.parametrize("shape", [(3.2, 4.24), (1.0, 1.0)])
def test_the_prior_is_worth_so_many_samples(shape):
    rate_P, rewards_PN = draws(shape, 20_000, 16)
    worth = round(sum(shape))
    shrunk = Shrunk(math.inf).estimate(rewards_PN[:, :4]).v_star_P
    plugin = Plugin(math.inf).estimate(rewards_PN[:, : 4 + worth]).v_star_P
    assert rms(shrunk - rate_P) == pytest.approx(rms(plugin - rate_P), rel=0.03)
