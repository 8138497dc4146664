import logging

import pytest

from astarpo.health import HealthWatch
from astarpo.types import TrainingStopped


def row(
    reward=0.5, kl=0.1, kl_se=0.01, engine_kl=0.0, truncated_share=0.0, reward_min=0.0, noise=0.0
):
    return {
        "reward": reward,
        "reward_min": reward_min,
        "kl": kl,
        "kl_se": kl_se,
        "engine_kl": engine_kl,
        "engine_kl_std": noise,
        "truncated_share": truncated_share,
    }


def feed(watch, rows):
    for r in rows:
        watch.check(r)


def test_a_healthy_run_passes_silently(caplog):
    watch = HealthWatch()
    feed(watch, [row(reward=0.3 + 0.004 * i, kl=0.01 * i) for i in range(100)])
    assert not caplog.records


def test_noise_around_zero_kl_passes():
    feed(HealthWatch(), [row(kl=(-1) ** i * 0.05 - 0.01, kl_se=0.05) for i in range(50)])


def test_clearly_negative_kl_stops():
    with pytest.raises(TrainingStopped, match="cannot be negative"):
        feed(HealthWatch(), [row(kl=-0.3)] * 10)


def test_rounding_of_another_engine_is_no_negative_kl():
    # What was sampled and what the trainer scores differ by rounding; their sum is the true KL.
    feed(HealthWatch(), [row(kl=-0.3, engine_kl=0.35)] * 30)


def test_collapse_warns_then_stops(caplog):
    watch = HealthWatch()
    feed(watch, [row(reward=0.6, kl=0.2)] * 15)
    with caplog.at_level(logging.WARNING, logger="astarpo"):
        feed(watch, [row(reward=0.3, kl=2.0)] * 10)
    assert "lower lr" in caplog.text
    with pytest.raises(TrainingStopped, match="collapsed"):
        feed(watch, [row(reward=0.0, kl=30.0)] * 10)


def test_negative_rewards_are_no_collapse_until_they_fall():
    watch = HealthWatch()
    rising = [row(reward=-0.8 + 0.02 * i, kl=0.05 * i, reward_min=-1.0) for i in range(40)]
    feed(watch, [row(reward=-0.9, kl=0.0, reward_min=-1.0)] * 10 + rising)
    feed(watch, [row(reward=-0.82 - 0.01 * i, kl=2.0, reward_min=-1.0) for i in range(3)])
    with pytest.raises(TrainingStopped, match="collapsed"):
        feed(watch, [row(reward=-0.95, kl=9.0, reward_min=-1.0)] * 10)


def test_a_falling_reward_without_climbing_kl_is_left_alone():
    watch = HealthWatch()
    feed(watch, [row(reward=0.6, kl=0.5)] * 15)
    feed(watch, [row(reward=0.05, kl=0.5)] * 15)


def test_truncation_warns_once(caplog):
    watch = HealthWatch()
    with caplog.at_level(logging.WARNING, logger="astarpo"):
        feed(watch, [row(truncated_share=0.8)] * 5)
    assert len(caplog.records) == 1


def test_far_moves_between_the_updates_of_a_rollout_warn_once(caplog):
    feed(HealthWatch(), [row() | {"drift": 0.33}, *[row() | {"drift": 0.17}] * 20])
    assert not caplog.records
    feed(HealthWatch(), [row() | {"drift": 0.6}] * 3)
    assert len(caplog.records) == 1
    assert "moves 0.60 nats" in caplog.text


def test_an_engines_rounding_is_no_drift(caplog):
    feed(HealthWatch(), [row(noise=1.6) | {"drift": 1.3}] * 20)
    assert not caplog.records
