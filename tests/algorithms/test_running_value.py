import numpy as np
import pytest

from astarpo.algorithms.running_value import RunningValue

RULE = RunningValue()


def test_start_by_hand():
    # 1 of 3 right: v_0 = 1.5 / 4, and at rho_min = 7/8 it weighs as 8 samples.
    first = RULE.first_values([1 / 3, 0.0], [3, 8])
    assert first == pytest.approx([0.375, 0.5 / 9])
    assert RULE.start(first)[0].tolist() == [3.0, 5.0]
    assert RULE.start(first).sum(axis=1) == pytest.approx([8, 8])


def test_updates_by_hand():
    counts = np.array([3.0, 5.0])
    right = RULE.updated(counts, 1.0, 0.875)
    assert right.tolist() == [3.625, 4.375]
    assert RULE.values(right) == pytest.approx(3.625 / 8)
    wrong = RULE.updated(right, 0.0, 0.96)
    assert wrong == pytest.approx([3.48, 5.2])
    assert RULE.updated(counts, 0.25, 0.875) == pytest.approx([2.875, 5.125])


def test_memory_halves_with_each_half_drift_within_its_bounds():
    wide = RunningValue(rho_min=0.01, rho_max=1.0)
    assert [wide.memory(d) for d in (0.0, 0.06, 0.12)] == pytest.approx([1, 0.5, 0.25])
    assert RULE.memory(0.0) == 0.96
    assert RULE.memory(1.0) == 0.875
    assert RULE.memory(0.006) == pytest.approx(2**-0.1)


def test_at_a_constant_success_rate_the_value_comes_to_it():
    for memory in (0.875, 0.96):
        counts, values = RULE.start(0.1), []
        for i in range(400):
            counts = RULE.updated(counts, float(i % 4 == 0), memory)
            values.append(RULE.values(counts))
        assert counts.sum() == pytest.approx(1 / (1 - memory))
        assert np.mean(values[-4:]) == pytest.approx(0.25, abs=1e-3)


def test_doubtful_prompts_come_more_often():
    weights = RULE.weights(np.array([[4.0, 4.0], [8.0, 0.0], [2.0, 8.0]]))
    assert weights == pytest.approx([0.55, 0.05, 0.45])


def test_rewards_that_are_no_successes_are_refused():
    assert RULE.refusal(0.0, 1.0) is None
    assert "one is -1:" in str(RULE.refusal(-1.0, 1.0))
    assert "one is 2.5:" in str(RULE.refusal(0.0, 2.5))
