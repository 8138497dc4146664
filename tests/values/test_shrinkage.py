import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from astarpo import ValueTable
from astarpo.cli import main, parse
from astarpo.tasks.problem_set import read_problems
from astarpo.types import UserError
from astarpo.values.estimators import Plugin, problem_values
from astarpo.values.prior import Beta, chance_of_all, fit_beta_prior
from astarpo.values.shrinkage import Shrunk
from tests.conftest import run_here

NAN = float("nan")


def draws(rng, rate_P: np.ndarray, num_samples: int) -> np.ndarray:
    return (rng.random((len(rate_P), num_samples)) < rate_P[:, None]).astype(float)


def true_values(rate_P: np.ndarray, beta: float) -> np.ndarray:
    return rate_P if math.isinf(beta) else beta * np.log1p(rate_P * math.expm1(1 / beta))


def rms(errors: np.ndarray) -> float:
    return float(np.sqrt((errors**2).mean()))


@pytest.mark.parametrize(
    ("a", "b", "precision"),
    [(2.0, 3.0, 0.08), (0.4, 0.4, 0.08), (0.3, 3.0, 0.08), (30.0, 10.0, 0.15)],
)
def test_the_prior_that_counts_were_drawn_from_is_found(a, b, precision):
    rng = np.random.default_rng(0)
    count_P = rng.integers(1, 17, 20_000)
    found = fit_beta_prior(rng.binomial(count_P, rng.beta(a, b, 20_000)), count_P)
    assert found == pytest.approx((a, b), rel=precision)


def test_no_prior_nearby_makes_the_counts_likelier():
    rng = np.random.default_rng(1)
    count_P = rng.integers(1, 9, 500)
    right_P = rng.binomial(count_P, rng.beta(1.5, 2.5, 500))

    def log_likelihood(a, b):
        mean, rho = a / (a + b), 1 / (1 + a + b)
        counts = zip(right_P.tolist(), count_P.tolist(), strict=True)
        terms = (log_beta(k + a, n - k + b) - log_beta(a, b) for k, n in counts)
        return sum(terms) + 0.5 * math.log(mean * (1 - mean)) + math.log(1 - rho)

    def log_beta(a, b):
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    a, b = fit_beta_prior(right_P, count_P)
    best = log_likelihood(a, b)
    for scale_a in (0.98, 1, 1.02):
        for scale_b in (0.98, 1, 1.02):
            assert log_likelihood(a * scale_a, b * scale_b) <= best + 1e-9


@pytest.mark.parametrize("beta", [0.05, 0.5, 2.0, math.inf])
def test_values_are_those_of_the_posterior_mean(beta):
    rewards_PN = np.array([[1, 1, 0, NAN], [0, NAN, NAN, NAN], [0, 0, 0, 1], [1, 1, 1, 1]])
    a, b = fit_beta_prior(np.array([2, 0, 1, 4]), np.array([3, 1, 4, 4]))
    rate_P = (np.array([2, 0, 1, 4]) + a) / (np.array([3, 1, 4, 4]) + a + b)
    assert Shrunk(beta).estimate(rewards_PN).v_star_P == pytest.approx(true_values(rate_P, beta))


@pytest.mark.parametrize("beta", [0.1, 0.5, math.inf])
def test_other_two_values_are_scaled_and_shifted(beta):
    rewards_PN = draws(np.random.default_rng(2), np.linspace(0.1, 0.9, 30), 4)
    plain = Shrunk(beta).estimate(rewards_PN)
    moved = Shrunk(3 * beta).estimate(3 * rewards_PN - 2)
    assert moved.v_star_P == pytest.approx(3 * plain.v_star_P - 2)
    assert moved.standard_error_P == pytest.approx(3 * plain.standard_error_P)


def test_many_samples_speak_for_themselves():
    rewards_PN = draws(np.random.default_rng(3), np.linspace(0.05, 0.95, 40), 4000)
    ours, papers = Shrunk(0.5).estimate(rewards_PN), Plugin(0.5).estimate(rewards_PN)
    assert ours.v_star_P == pytest.approx(papers.v_star_P, abs=2e-3)
    assert ours.standard_error_P == pytest.approx(papers.standard_error_P, rel=0.02)


def test_with_one_sample_each_all_problems_are_alike():
    rewards_PN = np.array([[1.0]] * 3 + [[0.0]] * 6)
    found = Shrunk(math.inf).estimate(rewards_PN)
    assert found.v_star_P == pytest.approx(3.5 / 10, abs=1e-4)  # half a success and failure more
    assert np.isnan(found.standard_error_P).all()


@pytest.mark.parametrize("beta", [0.5, math.inf])
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_problems_of_which_every_sample_is_the_same_are_no_certainty(reward, beta):
    found = Shrunk(beta).estimate(np.full((50, 4), reward))
    assert np.abs(found.v_star_P - reward).max() < 0.02
    assert (found.v_star_P != reward).all()
    assert np.isfinite(found.standard_error_P).all()


def test_one_problem_and_a_reward_without_another():
    assert Shrunk(math.inf).estimate(np.array([[1.0, 0, 0]])).v_star_P == pytest.approx(
        1.5 / 4, abs=1e-3
    )
    assert Shrunk(0.5).estimate(np.full((3, 2), 0.3)).v_star_P == pytest.approx(0.3)


# Root mean square errors over 4,000 problems: the paper's estimator, and this one.
@pytest.mark.parametrize(
    ("shape", "num_samples", "plugin", "shrunk"),
    [
        ((3.2, 4.24), 1, 0.46, 0.170),
        ((3.2, 4.24), 2, 0.32, 0.150),
        ((3.2, 4.24), 4, 0.235, 0.138),
        ((3.2, 4.24), 8, 0.165, 0.118),
        ((1.0, 1.0), 2, 0.29, 0.204),
        ((1.0, 1.0), 4, 0.204, 0.167),
        ((0.4, 0.4), 4, 0.163, 0.149),
    ],
)
def test_fewer_samples_do(shape, num_samples, plugin, shrunk):
    rng = np.random.default_rng(4)
    rate_P = rng.beta(*shape, 4000)
    rewards_PN = draws(rng, rate_P, num_samples)
    assert rms(Plugin(math.inf).estimate(rewards_PN).v_star_P - rate_P) == pytest.approx(
        plugin, abs=0.01
    )
    assert rms(Shrunk(math.inf).estimate(rewards_PN).v_star_P - rate_P) == pytest.approx(
        shrunk, abs=0.004
    )


@pytest.mark.parametrize("beta", [0.25, 0.5, math.inf])
@pytest.mark.parametrize("shape", [(3.2, 4.24), (1.0, 1.0), (0.4, 0.4), (0.3, 3.0)])
def test_the_stated_error_is_the_true_one(shape, beta):
    rng = np.random.default_rng(5)
    rate_P = rng.beta(*shape, 8000)
    found = Shrunk(beta).estimate(draws(rng, rate_P, 4))
    errors = found.v_star_P - true_values(rate_P, beta)
    assert rms(found.standard_error_P) == pytest.approx(rms(errors), rel=0.06)


@pytest.mark.parametrize(("a", "b"), [(0.01, 0.5), (0.3, 9.0), (2.0, 2.0), (40, 0.05), (9e3, 2e4)])
def test_the_posterior_error_against_its_closed_form(a, b):
    exact = math.sqrt(a * b / (a + b + 1)) / (a + b)  # a Beta distribution's deviation
    found = Shrunk(math.inf)._distance(Beta(a, b), a / (a + b), 0.0, 1.0)
    assert found == pytest.approx(exact, rel=1e-5)


def test_other_rewards_by_moments():
    # Means 1 and 5, variance within 2, between (2*4 + 2*4 - 2) / (4 - 8/4) = 7: weight 7/8.
    found = Shrunk(math.inf).estimate(np.array([[0.0, 2.0], [4.0, 6.0]]))
    assert found.v_star_P.tolist() == [1.25, 4.75]
    # The same many times over: 3 between, 2 within, hence sqrt(3 * 1 / (3 + 1)).
    found = Shrunk(math.inf).estimate(np.array([[0.0, 2.0], [4.0, 6.0]] * 2000))
    assert found.standard_error_P == pytest.approx([math.sqrt(3 / 4)] * 4000, rel=1e-3)
    at_one = Shrunk(1.0).estimate(np.log([[1.0, 3.0], [5.0, 7.0]]))  # whose exp are such numbers
    assert at_one.v_star_P == pytest.approx(np.log([2.25, 5.75]))


def test_means_of_other_rewards_come_nearer():
    rng = np.random.default_rng(6)
    truth_P = rng.normal(size=3000)
    rewards_PN = truth_P[:, None] + 2 * rng.normal(size=(3000, 3))
    found = Shrunk(math.inf).estimate(rewards_PN)
    error = rms(found.v_star_P - truth_P)
    assert error == pytest.approx(math.sqrt(1 / (1 + 3 / 4)), rel=0.03)  # the best there is
    assert error < 0.7 * rms(rewards_PN.mean(axis=1) - truth_P)
    assert found.standard_error_P == pytest.approx(error, rel=0.05)


def test_one_unlucky_sample_drops_no_problem():
    rng = np.random.default_rng(7)
    rewards_PN = np.full((4000, 8), NAN)
    rewards_PN[:, :1] = draws(rng, rng.uniform(size=4000), 1)
    rewards_PN[:2000] = draws(rng, rng.uniform(size=2000), 8)
    found = problem_values(rewards_PN, Shrunk(0.5))
    right_P, count_P = np.nansum(rewards_PN, axis=1), found.num_samples_P
    assert not found.all_wrong_P[count_P == 1].any()
    assert not found.all_right_P[count_P == 1].any()
    many = count_P == 8
    assert found.all_wrong_P[many].tolist() == (right_P[many] == 0).tolist()
    assert found.all_right_P[many].tolist() == (right_P[many] == 8).tolist()
    papers = problem_values(rewards_PN, Plugin(0.5))
    assert papers.all_wrong_P.tolist() == (right_P == 0).tolist()


@pytest.mark.parametrize("estimator", [Plugin(0.5), Shrunk(0.5), Shrunk(math.inf)])
def test_a_table_without_a_problem_has_no_values(estimator):
    found = problem_values(np.empty((0, 0)), estimator)
    assert found.v_star_P.tolist() == found.all_wrong_P.tolist() == []


def test_chance_of_all_in_closed_form():
    # Of a uniform rate that has failed 8 times in 8: the integral of 9 (1 - p)^16.
    assert chance_of_all(9.0, 1.0) == pytest.approx(9 / 17)
    assert Beta(9.0, 1.0).a == 9.0


def test_the_maximum_is_not_shrunk(capsys):
    with pytest.raises(ValueError, match="beta1 must be above 0"):
        Shrunk(0.0)
    words = ["estimate", "--model", "m", "--problems", "p", "--out", "o", "--estimator", "shrunk"]
    assert main([*words, "--beta1", "0"]) == 2
    assert "give a larger --beta1, or --estimator plugin" in capsys.readouterr().err
    assert parse([*words, "--beta1", "0.1"])[0].estimator == "shrunk"
    assert parse([*words[:-1], "plugin", "--beta1", "0"])[0].beta1 == 0
    with pytest.raises(UserError, match="grpo does not read it"):
        parse(["train", "--algorithm", "grpo", *words[1:]])


def test_a_table_is_exported_and_trained_on_by_it(table_path, problems_path, train_words, tmp_path):
    out = tmp_path / "values.parquet"
    done = run_here(
        *("export", table_path, "--problems", problems_path, "--out", out, "--format", "trl"),
        *("--estimator", "shrunk", "--beta1", "inf"),
    )
    assert done.returncode == 0, done.stderr
    problems = read_problems(problems_path)
    expected = ValueTable(table_path).values(problems, Shrunk(math.inf)).v_star_P
    assert pq.read_table(out)["v_star"].to_numpy() == pytest.approx(expected)
    done = run_here(*train_words, "--estimator", "shrunk", "--out", tmp_path / "run", "--steps", 2)
    assert done.returncode == 0, done.stderr
