import math
from itertools import pairwise

import numpy as np
import pytest

from astarpo.types import UserError
from astarpo.values.prior import weigh_priors
from astarpo.values.rounds import Limit, next_round, prices, rounds, stated_error
from astarpo.values.shrinkage import Shrunk

NAN = float("nan")


class World:
    """Samples that a sampler would give: of each problem with its own rate and tokens."""

    def __init__(self, rate_P, tokens_P=None, most: int = 256, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.rewards_PN = (rng.random((len(rate_P), most)) < rate_P[:, None]).astype(float)
        self.tokens_P = np.ones(len(rate_P)) if tokens_P is None else tokens_P

    def read(self, counts_P):
        there_PN = np.arange(counts_P.max()) < counts_P[:, None]
        rewards_PN = np.where(there_PN, self.rewards_PN[:, : counts_P.max()], NAN)
        return [rewards_PN, np.where(there_PN, self.tokens_P[:, None], NAN)]

    def plan(self, first: int, limit: Limit, beta: float = math.inf):
        first_P = np.full(len(self.tokens_P), first)
        return [r.counts_P for r in rounds(first_P, self.read, Shrunk(beta), limit)]


def mixed(num_problems: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    parts = [rng.beta(*ab, num_problems) for ab in ((1, 60), (40, 3), (2, 2))]
    return np.choose(rng.integers(0, 3, num_problems), parts)


def rms(errors) -> float:
    return float(np.sqrt((np.asarray(errors) ** 2).mean()))


def test_a_round_goes_where_the_closed_form_says():
    # Two right of two, one of two, none of two; 40 times each, so a quarter of 240 samples are 60.
    rewards_PN = np.array([[1.0, 1], [0, 1], [0, 0]] * 40)
    priors = weigh_priors(rewards_PN.sum(axis=1).astype(int), np.full(120, 2))
    estimates = Shrunk(math.inf).estimate(rewards_PN).v_star_P[2::-1]

    def gain(right: int, already: int) -> float:
        x, y = priors.known(right, 2)
        squared = x * y / ((x + y) ** 2 * (x + y + 1)) + (x / (x + y) - estimates[right]) ** 2
        after = [squared * (x + y) / (x + y + j) for j in (already, already + 1)]
        return after[0] - after[1]

    gains = [(-gain(int(rewards_PN[p].sum()), j), p, j) for p in range(120) for j in range(2)]
    expected = [p for _, p, _ in sorted(gains)[:60]]
    planned_R, error_R = next_round(rewards_PN, np.ones((120, 2)), Shrunk(math.inf))
    assert planned_R.tolist() == expected
    assert planned_R.tolist()[:4] == [1, 4, 7, 10]  # of one right in two the least is known
    stated = stated_error(rewards_PN, Shrunk(math.inf))
    left = 120 * stated**2 + sum(gain for gain, _, _ in sorted(gains)[:60])
    assert error_R[-1] == pytest.approx(math.sqrt(left / 120), rel=1e-4)
    assert (np.diff(error_R) < 0).all()


def test_long_samples_have_to_tell_more():
    rewards_PN = np.tile([0.0, 1.0], (40, 1))
    tokens_PN = np.tile([[9.0, 11.0]] * 20 + [[29.0, 31.0]] * 20, 1)
    assert set(next_round(rewards_PN, tokens_PN, Shrunk(0.5))[0].tolist()) <= set(range(20))
    price_P = prices(np.array([[10.0, 10, NAN, NAN], [30.0, 30, 30, 31]]))
    assert 10 < price_P[0] < price_P[1] < 30.25  # drawn towards each other


@pytest.mark.parametrize("beta", [0.5, math.inf])
def test_samples_go_where_they_tell_most_and_the_error_is_less_for_it(beta):
    rate_P = mixed(2000)
    world = World(rate_P)
    counts_P = world.plan(2, Limit(samples=8000), beta)[-1]
    assert counts_P.sum() == 8000
    easy_P, open_P = rate_P > 0.97, (rate_P > 0.3) & (rate_P < 0.7)
    assert counts_P[easy_P].mean() < 3.5 < 4.8 < counts_P[open_P].mean()
    if math.isinf(beta):  # At .5, V* is steep where problems are hopeless.
        assert counts_P[rate_P < 0.02].mean() < 3.5
    truth_P = rate_P if math.isinf(beta) else beta * np.log1p(rate_P * math.expm1(1 / beta))

    def error(counts_P) -> float:
        return rms(Shrunk(beta).estimate(world.read(counts_P)[0]).v_star_P - truth_P)

    assert error(counts_P) < 0.97 * error(np.full(2000, 4))


@pytest.mark.parametrize("shape", [(3.2, 4.24), (1.0, 1.0), (0.4, 0.4), (0.3, 3.0)])
@pytest.mark.parametrize("target", [0.12, 0.08])
def test_the_target_error_is_the_true_one(shape, target):
    rate_P = np.random.default_rng(2).beta(*shape, 8000)
    world = World(rate_P)
    planned = world.plan(2, Limit(error=target))
    found = Shrunk(math.inf).estimate(world.read(planned[-1])[0])
    assert rms(found.standard_error_P) <= target
    if len(planned) > 1:
        assert rms(found.standard_error_P) > 0.95 * target  # hardly more than it takes
    assert rms(found.v_star_P - rate_P) == pytest.approx(rms(found.standard_error_P), rel=0.06)
    if len(planned) > 1:  # The round before it had not reached it.
        before = Shrunk(math.inf).estimate(world.read(planned[-2])[0])
        assert rms(before.standard_error_P) > target


def test_a_greater_limit_goes_on_from_a_smaller_one():
    world = World(mixed(300))
    for kind in ("samples", "tokens"):
        ends = [world.plan(2, Limit(**{kind: limit}))[-1] for limit in (700, 1000, 1500, 1501)]
        assert [end.sum() for end in ends] == [700, 1000, 1500, 1501]
        for smaller, larger in pairwise(ends):
            assert (smaller <= larger).all()
    by_error = world.plan(2, Limit(error=0.1))[-1]
    assert (by_error <= world.plan(2, Limit(error=0.09))[-1]).all()
    assert (by_error == world.plan(2, Limit(samples=by_error.sum()))[-1]).all()


def test_a_round_sees_no_sample_beyond_its_own():
    world = World(mixed(300))
    planned = world.plan(2, Limit(samples=1500))
    asked = []

    def read(counts_P):
        asked.append(counts_P)
        return world.read(counts_P)

    list(rounds(np.full(300, 2), read, Shrunk(math.inf), Limit(samples=1500)))
    assert [a.tolist() for a in asked] == [p.tolist() for p in planned[:-1]]


def test_rounds_are_large_and_none_doubles_what_is_known_of_a_problem():
    planned = World(mixed(500)).plan(2, Limit(samples=5000))
    for before_P, after_P in pairwise(planned[:-1]):
        assert after_P.sum() - before_P.sum() == math.ceil(before_P.sum() / 4)
        assert (after_P <= 2 * before_P).all()


def test_a_budget_of_tokens_is_kept_by_what_samples_cost():
    rng = np.random.default_rng(3)
    world = World(mixed(400), tokens_P=rng.integers(5, 100, 400).astype(float))
    counts_P = world.plan(1, Limit(tokens=60_000))[-1]
    assert (counts_P * world.tokens_P).sum() == pytest.approx(60_000, rel=0.01)


def test_one_sample_each_does_not_say_how_far_v_star_is_known():
    world = World(mixed(200))
    planned = world.plan(1, Limit(error=0.2))
    assert len(planned) > 1  # goes on
    assert world.plan(1, Limit(samples=200))[-1].tolist() == [1] * 200


def test_rewards_of_more_than_two_values_are_refused():
    with pytest.raises(UserError, match=r"3 values, such as 0.5: leave it out and give --samples"):
        next_round(np.array([[0.0, 0.5], [1.0, 1.0]]), np.ones((2, 2)), Shrunk(0.5))


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_problems_that_are_all_alike(reward):
    world = World(np.full(50, reward), most=64)
    assert world.plan(2, Limit(samples=301))[-1].sum() == 301
