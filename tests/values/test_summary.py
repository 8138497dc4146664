import numpy as np
import pyarrow as pa
import pytest

from astarpo.values.estimators import Plugin, problem_values
from astarpo.values.summary import (
    count_words,
    describe,
    level_counts,
    summarize_samples,
    summarize_values,
)

NAN = np.nan


def test_a_summary_counts_problems_and_samples_as_they_are():
    rewards_PN = [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, NAN, NAN], [-1, -1, NAN, NAN]]
    found = summarize_values(problem_values(rewards_PN, Plugin(0.5)))
    assert found.num_problems == 4
    assert found.num_samples == [2, 4]
    assert found.mean_reward == pytest.approx((4 + 1 - 2) / 12)
    assert (found.all_wrong, found.all_right) == (0.5, 0.25)
    assert found.solve_rates.rewards.tolist() == [-1, 0, 0.5, 1]
    assert found.solve_rates.counts.tolist() == [1, 1, 1, 1]


def test_what_stage_1_found_as_text():
    values = summarize_values(problem_values([[0, 0], [0, 0], [1, 0]], Plugin(0.5)))
    samples = summarize_samples(
        pa.table(
            {
                "num_tokens": [3, 5, 7, 16],
                "finish_reason": ["stop", "stop", "stop", "length"],
                "status": ["ok", "no_answer", "ok", "ok"],
            }
        )
    )
    assert samples.num_tokens == 31
    assert describe(values, samples, 16).splitlines() == [
        "solve rate of 3 problems over 2 samples:",
        "   0.000   66.7%  " + "#" * 40,
        "   0.500   33.3%  " + "#" * 20,
        "all wrong 66.7%, all right 0.0%; mean 0.167",
        "tokens a sample: median 6, longest 16, limit 16; truncated 25.0%; "
        "verdicts: ok 3, no_answer 1",
    ]


def test_means_that_hardly_repeat_are_binned():
    levels, counts = level_counts(np.array([0.25, 0.5, 0.25]))
    assert (levels.tolist(), counts.tolist()) == ([0.25, 0.5], [2, 1])
    levels, counts = level_counts(np.linspace(-1, 1, 500))
    assert len(levels) == len(counts) == 20
    assert counts.sum() == 500
    assert levels[0] == pytest.approx(-0.95)


def test_numbers_of_samples_in_words():
    assert [count_words(n) for n in ([8], [2, 8], [2, 3, 31])] == ["8", "2 or 8", "2 to 31"]
