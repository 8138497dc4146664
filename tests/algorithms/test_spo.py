import math
from dataclasses import replace

import pytest
import torch

from astarpo.algorithms.base import LossInputs
from astarpo.algorithms.spo import SPO
from tests.support.toy import apply, doubles, make_rollout, random_case

SPO_ = SPO(clip=0.2, clip_high=0.28)


def test_advantages_by_hand():
    # r - v is .75, -.25, -.5, 0: mean 0, deviation sqrt((.5625 + .0625 + .25) / 3) by B - 1.
    rollout = make_rollout(
        mask=[[1]] * 4, rewards=[1, 0, 0, 1], values=[0.25, 0.25, 0.5, 1.0],
        sampled=[[0]] * 4, ref=[[0]] * 4,
    )  # fmt: skip
    advantages = SPO_.prepare(rollout).advantages
    scale = math.sqrt(0.875 / 3)
    assert advantages.tolist() == pytest.approx([0.75 / scale, -0.25 / scale, -0.5 / scale, 0])


@pytest.mark.parametrize("rewards", [[1.0], [1.0, 1.0]])
def test_answers_that_do_not_differ_teach_nothing(rewards):
    blank = [[0.0]] * len(rewards)
    rollout = make_rollout(
        mask=[[1]] * len(rewards), rewards=rewards, values=[0.5] * len(rewards), sampled=blank,
        ref=blank,
    )  # fmt: skip
    assert SPO_.prepare(rollout).advantages.tolist() == [0.0] * len(rewards)


def test_hand_computed_with_a_clip_that_is_higher_above():
    # Advantages +-sqrt(1/2). Of the right answer ratio 1.5 counts as 1.28, of the wrong one .5 as
    # .8; 1.25 lies between 1.2 and 1.28 and counts as it is.
    rollout = make_rollout(
        mask=[[1, 1], [1, 0]], rewards=[1.0, 0.0], values=[0.5, 0.5],
        sampled=[[-1.0, -2.0], [-3.0, -4.0]], ref=[[0.0, 0.0]] * 2, mean_length=1.5,
    )  # fmt: skip
    logprobs = rollout.sampled_logprobs_BT + doubles([[1.5, 1.25], [0.5, 1.0]]).log()
    output = apply(SPO_, rollout, logprobs)
    unit = math.sqrt(0.5)
    assert output.loss_B.tolist() == pytest.approx(
        [-unit * (1.28 + 1.25) / 1.5, unit * 0.8 / 1.5], rel=1e-6
    )
    assert output.metrics["clipped"].tolist() == [0.5, 1.0]


def test_gradient_agrees_with_the_equation_written_out():
    rollout, inputs = random_case(seed=7, num_sequences=6)
    logprobs_BT = inputs.logprobs_BT.detach()
    output = SPO_.loss(replace(inputs, rollout=SPO_.prepare(rollout)))
    (gradient,) = torch.autograd.grad(output.loss_B.mean(), inputs.logprobs_BT)

    deltas = [r - v for r, v in zip(rollout.rewards_B, rollout.values_B, strict=True)]
    mean = sum(deltas) / 6
    deviation = (sum((d - mean) ** 2 for d in deltas) / 5) ** 0.5
    num_tokens = int(rollout.mask_BT.sum())
    for i, delta in enumerate(deltas):
        advantage = (delta - mean) / deviation
        for t in range(rollout.mask_BT.shape[1]):
            ratio = math.exp(logprobs_BT[i, t] - rollout.sampled_logprobs_BT[i, t])
            stopped = ratio > 1.28 if advantage > 0 else ratio < 0.8
            free = bool(rollout.mask_BT[i, t]) and not stopped
            expected = -float(advantage) * ratio / num_tokens if free else 0.0
            assert gradient[i, t].item() == pytest.approx(expected, rel=1e-6)


def test_the_sides_of_the_clip():
    for ratio, advantage, moves in [
        (1.27, 1.0, True), (1.29, 1.0, False), (0.79, -1.0, False), (0.81, -1.0, True),
        (1.29, -1.0, True), (0.79, 1.0, True),
    ]:  # fmt: skip
        logprobs = doubles([[math.log(ratio)]]).requires_grad_()
        rollout = make_rollout(
            mask=[[1]], rewards=[0.0], sampled=[[0.0]], ref=[[0.0]], advantages=doubles([advantage])
        )
        (gradient,) = torch.autograd.grad(
            SPO_.loss(LossInputs(logprobs, rollout)).loss_B.sum(), logprobs
        )
        assert gradient.item() == pytest.approx(-advantage * ratio if moves else 0.0)
