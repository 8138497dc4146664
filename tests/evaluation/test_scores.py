import itertools

import numpy as np
import pytest

from astarpo.evaluation.scores import (
    majority_right,
    mean_change,
    mean_score,
    pass_at_k,
)


def test_wilson_interval_by_hand():
    # 8 right of 10: centre (0.8 + 0.19207) / 1.38415 = 0.71674, margin 0.22640.
    score = mean_score([1] * 8 + [0] * 2)
    assert score.value == pytest.approx(0.8)
    assert (score.low, score.high) == pytest.approx((0.49016, 0.94332), abs=1e-4)


def test_interval_is_never_empty_at_the_ends():
    score = mean_score([0.0] * 50)
    assert score.low == pytest.approx(0, abs=1e-12)
    assert score.high == pytest.approx(0.0713, abs=1e-4)
    assert mean_score([1.0] * 50).low == pytest.approx(1 - 0.0713, abs=1e-4)


def test_averages_of_samples_get_a_narrower_interval():
    coin, average = mean_score([0, 1] * 20), mean_score([0.4, 0.6] * 20)
    assert average.value == coin.value
    assert average.high - average.low < 0.5 * (coin.high - coin.low)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    chances = rng.beta(1, 2, size=(2000, 60))  # problems differ in difficulty
    scores = rng.binomial(4, chances) / 4
    covered = [s.low <= 1 / 3 <= s.high for s in map(mean_score, scores)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_scores_outside_0_1_get_the_normal_interval():
    score = mean_score([-1.0, 0.0, 1.0, 2.0])
    assert score.value == 0.5
    assert score.high - score.value == pytest.approx(1.96 * np.std([-1, 0, 1, 2], ddof=1) / 2, 1e-3)


@pytest.mark.parametrize(
    ("score", "count", "low", "high"),
    [
        # z^2 / (z^2 + 30) = .11352: by so much the mean may be drawn to 0 or to 1.
        (0.3, 30, 0.3 * (1 - 0.11352), 0.3 + 0.11352 * 0.7),
        (0.1 + 0.2, 30, 0.3 * (1 - 0.11352), 0.3 + 0.11352 * 0.7),
        (0.0, 30, 0.0, 0.11352),
        (1.0, 30, 1 - 0.11352, 1.0),
        # Rewards from -1 to 1, and one of a size that no other tells of.
        (-1.0, 30, -1.0, -1 + 0.11352 * 2),
        (5.0, 30, 5 * (1 - 0.11352), 5.0),
        (0.5, 1, 0.5 * (1 - 0.79346), 0.5 + 0.79346 * 0.5),
    ],
)
def test_equal_scores_leave_room_for_what_was_not_seen(score, count, low, high):
    got = mean_score([score] * count)
    assert (got.value, got.low, got.high) == pytest.approx((score, low, high), abs=1e-4)


def test_no_change_in_any_pair_leaves_room_for_some():
    # z^2 / (z^2 + 50) = .07135 of the problems may change by 1 one way or the other.
    assert mean_change([0, 1] * 25, [0, 1] * 25) == pytest.approx((0, -0.07135, 0.07135), abs=1e-5)
    # One of four changes by 1: mean .25, deviation .5, margin 1.96 * .5 / 2.
    assert mean_change([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx((0.25, -0.24, 0.74), abs=1e-3)


@pytest.mark.parametrize("rare", [0.0, 1.0])
def test_equal_scores_cover_a_mean_that_rare_problems_move(rare):
    """Problems score .3, but one in fifty scores `rare`: of 30 drawn, half show only .3."""
    rng = np.random.default_rng(0)
    truth = 0.98 * 0.3 + 0.02 * rare
    drawn = np.where(rng.random((1000, 30)) < 0.02, rare, 0.3)
    scores = [mean_score(row) for row in drawn if np.ptp(row) == 0]
    assert len(scores) > 300
    assert all(score.low <= truth <= score.high for score in scores)


@pytest.mark.parametrize(
    ("n", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4), (6, 5, 3)]
)
def test_pass_at_k_by_enumeration(n, right, k):
    outcomes = [1] * right + [0] * (n - right)
    draws = [max(draw) for draw in itertools.combinations(outcomes, k)]
    assert pass_at_k(n, right, k) == pytest.approx(np.mean(draws))


def test_pass_at_k_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="k must be"):
        pass_at_k(4, 2, 5)


@pytest.mark.parametrize(
    ("answers", "rewards", "expected"),
    [
        (["7", "7", "8"], [1, 1, 0], 1.0),
        (["7", "8", "8"], [1, 0, 0], 0.0),
        (["7", "8"], [1, 0], 0.5),
        (["8", "7"], [0, 1], 0.5),
        ([None, None, "7"], [0, 0, 1], 1.0),
        ([None, None], [0, 0], 0.0),
    ],
)
def test_majority(answers, rewards, expected):
    assert majority_right(answers, rewards) == expected
