import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest

from astarpo.training.health import PATIENCE, HealthWatch
from astarpo.training.metrics import answer_metrics
from astarpo.types import Answer, Completion, Prompt, TrainingStopped, Verdict
from tests.conftest import digit_problems

PROMPTS = 64


def row(reward=0.5, kl=0.1, **changes):
    share = min(1.0, max(0.0, reward))
    return {
        "reward": reward,
        "reward_se": math.sqrt(share * (1 - share) / PROMPTS),
        "reward_min": 0.0,
        "kl": kl,
        "kl_se": 0.01,
        "engine_kl": 0.0,
        "engine_kl_std": 0.0,
        "truncated_share": 0.0,
    } | changes


def feed(rows, mode="stop", prompts=PROMPTS):
    """Shows a new watch some steps; returns after how many of them it stops, None if never."""
    watch = HealthWatch(prompts, mode)
    for count, metrics in enumerate(rows, start=1):
        try:
            watch.check(metrics)
        except TrainingStopped:
            return count
    return None


def simulated(rates, prompts, rng, kls):
    """Steps of right and wrong answers at given solve rates."""
    for rate, kl in zip(rates, kls, strict=True):
        share = rng.binomial(prompts, rate) / prompts
        error = math.sqrt(share * (1 - share) / max(1, prompts - 1))
        yield row(share, kl + rng.normal(0, 0.05), kl_se=0.05, reward_se=error)


def test_a_healthy_run_passes_silently(caplog):
    assert feed([row(0.3 + 0.004 * i, kl=0.01 * i) for i in range(100)]) is None
    assert not caplog.records


@pytest.mark.parametrize("prompts", [1, 8, 128])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_chance_stops_no_run(rate, prompts, caplog):
    # However long the KL climbs, a reward that only wavers is no collapse.
    for seed in range(4):
        kls = np.linspace(0, 8, 1000)
        steps = simulated([rate] * 1000, prompts, np.random.default_rng(seed), kls)
        assert feed(steps, prompts=prompts) is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("before", "prompts", "within"), [(0.5, 128, 8), (0.5, 8, 20), (0.1, 32, 20), (0.1, 8, 50)]
)
def test_a_fall_to_nothing_stops_soon(before, prompts, within):
    kls = [*np.linspace(0, 1, 60), *np.linspace(1, 30, 60)]
    for seed in range(10):
        rates = [before] * 60 + [0.0] * 60
        stopped = feed(simulated(rates, prompts, np.random.default_rng(seed), kls), prompts=prompts)
        assert stopped is not None
        assert 60 < stopped <= 60 + within


def test_a_real_collapse_stops_after_a_warning(caplog):
    # The demo's policy at lr 5e-4 with two updates a rollout of 128: gone at its sixth step.
    lines = Path(__file__).with_name("collapse.jsonl").read_text().splitlines()
    with caplog.at_level(logging.WARNING, logger="astarpo"):
        assert feed(map(json.loads, lines), prompts=128) == 11
    assert "the reward fell from 0.289 to" in caplog.text
    assert "has collapsed; lower lr" in caplog.text


def test_a_watch_may_only_warn_or_not_look(caplog):
    rows = [row(0.6)] * 15 + [row(0.0, kl=30.0)] * 30
    assert feed(rows, "off") is None
    assert not caplog.records
    assert feed(rows, "warn") is None
    assert "collapsed" in caplog.text
    assert feed(rows) is not None


def test_a_resumed_run_stops_where_it_would_have(caplog):
    rows = [row(0.6)] * 15 + [row(0.0, kl=30.0)] * 30
    stopped = feed(rows)
    for seen in range(stopped):
        watch = HealthWatch(PROMPTS, "stop", rows[:seen])
        for metrics in rows[seen : stopped - 1]:
            watch.check(metrics)
        with pytest.raises(TrainingStopped):
            watch.check(rows[stopped - 1])


def test_noise_around_zero_kl_passes():
    assert feed([row(kl=(-1) ** i * 0.05 - 0.01, kl_se=0.05) for i in range(50)]) is None


def test_clearly_negative_kl_stops_after_a_warning(caplog):
    assert feed([row(kl=-0.3)] * 10) == 3 + PATIENCE
    assert "cannot be negative" in caplog.text


def test_rounding_of_another_engine_is_no_negative_kl():
    # What was sampled and what the trainer scores differ by rounding; their sum is the true KL.
    assert feed([row(kl=-0.3, engine_kl=0.35)] * 30) is None


def test_a_decline_warns_and_goes_on(caplog):
    rows = [row(0.6, kl=0.2)] * 15 + [row(0.3, kl=2.0)] * 50
    assert feed(rows) is None
    assert len(caplog.records) == 1
    assert "lower lr" in caplog.text


def test_negative_rewards_are_no_collapse_until_they_fall():
    def steps(rewards, kl):
        return [row(r, kl=kl, reward_min=-1.0, reward_se=0.05) for r in rewards]

    rising = [-0.9] * 10 + [-0.8 + 0.02 * i for i in range(40)]
    dipped = [-0.82 - 0.01 * i for i in range(3)]
    assert feed(steps(rising, 0.5) + steps(dipped, 2.0)) is None
    assert feed(steps(rising, 0.5) + steps([-0.95] * 15, 9.0)) is not None


def test_a_falling_reward_without_climbing_kl_is_left_alone():
    assert feed([row(0.6, kl=0.5)] * 15 + [row(0.05, kl=0.5)] * 15) is None
    assert feed([row(0.6, kl=0.0)] * 15 + [row(0.05, kl=0.01)] * 15) is None


def test_truncation_warns_once(caplog):
    feed([row(truncated_share=0.8)] * 5)
    assert len(caplog.records) == 1


def test_far_moves_between_the_updates_of_a_rollout_warn_once(caplog):
    feed([row(drift=0.33), *[row(drift=0.17)] * 20])
    assert not caplog.records
    feed([row(drift=0.6)] * 3)
    assert len(caplog.records) == 1
    assert "moves 0.60 nats" in caplog.text


def test_an_engines_rounding_is_no_drift(caplog):
    feed([row(engine_kl_std=1.6, drift=1.3)] * 20)
    assert not caplog.records


def test_the_error_of_a_reward_counts_prompts_not_samples():
    one, other = digit_problems(2)
    answers = [
        Answer(Prompt(p, (1,)), Completion((3,), (-0.5,), "stop"), "", Verdict(r, "1", "ok"))
        for p, r in [(one, 1.0), (one, 1.0), (other, 0.0), (other, 0.5)]
    ]
    metrics = answer_metrics(answers)
    assert metrics["reward"] == 0.625
    assert metrics["reward_se"] == pytest.approx(0.375)  # of the means 1 and .25
    assert answer_metrics(answers[:2])["reward_se"] == 0.0
