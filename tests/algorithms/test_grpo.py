import math
from dataclasses import replace

import pytest
import torch

from astarpo.algorithms.base import LossInputs
from astarpo.algorithms.grpo import GRPO, k3
from tests.support.toy import ToyPolicy, apply, doubles, expected_loss, make_rollout, objective

PLAIN = GRPO(group_size=2, clip=0.2, kl_coef=0.0, std_normalize=False, length_scale=None)
# Ratios 1.5, 0.9 (a right answer) and 0.5 (a wrong one); the reference twice as sure of token 1.
RATIOS = doubles([[1.5, 0.9], [0.5, 1.0]])
ROLLOUT = make_rollout(
    mask=[[1, 1], [1, 0]],
    rewards=[1.0, 0.0],
    sampled=[[-1.0, -2.0], [-3.0, -4.0]],
    ref=[[-1.0 + math.log(3.0), -2.0 + math.log(0.9)], [-3.0 + math.log(0.5), 0.0]],
)
LOGPROBS = ROLLOUT.sampled_logprobs_BT + RATIOS.log()
K3 = 2 - math.log(2) - 1


def test_advantages_by_hand():
    rollout = make_rollout(mask=[[1]] * 4, rewards=[1, 0, 1, 1], sampled=[[0]] * 4, ref=[[0]] * 4)
    # Group 1: mean 1/2, deviation sqrt((1/4 + 1/4) / (2 - 1)). Group 2: nothing to learn from.
    scaled = 0.5 / (math.sqrt(0.5) + 1e-4)
    advantages = replace(PLAIN, std_normalize=True).prepare(rollout).advantages
    assert advantages.tolist() == pytest.approx([scaled, -scaled, 0, 0])
    assert PLAIN.prepare(rollout).advantages.tolist() == [0.5, -0.5, 0, 0]


def test_hand_computed():
    # Tokens: -min(1.5, 1.2)/2 = -0.6 and -0.9/2 = -0.45; the wrong one -min(-0.25, -0.4) = 0.4.
    output = apply(replace(PLAIN, kl_coef=0.1), ROLLOUT, LOGPROBS)
    assert output.loss_B.tolist() == pytest.approx([(-0.6 - 0.45 + 0.1 * K3) / 2, 0.4])
    assert output.metrics["clipped"].tolist() == [0.5, 1.0]
    assert output.metrics["k3"].tolist() == pytest.approx([K3 / 2, 0.0])


def test_a_length_scale_replaces_the_response_s_own_length():
    output = apply(replace(PLAIN, kl_coef=0.1, length_scale=10.0), ROLLOUT, LOGPROBS)
    assert output.loss_B.tolist() == pytest.approx([(-0.6 - 0.45 + 0.1 * K3) / 10, 0.04])


def test_the_clip_does_nothing_on_policy():
    for clip in (1e-9, 0.2, 5.0):
        logprobs = ROLLOUT.sampled_logprobs_BT.clone().requires_grad_()
        output = apply(replace(PLAIN, clip=clip, length_scale=1.0), ROLLOUT, logprobs)
        (gradient,) = torch.autograd.grad(output.loss_B.sum(), logprobs)
        assert gradient.tolist() == [[-0.5, -0.5], [0.5, 0.0]]
        assert output.metrics["clipped"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.3, 1.0, False),  # better, and already more likely: enough
        (0.7, 1.0, True),  # better, but less likely: back
        (1.3, -1.0, True),  # worse, but more likely: back
        (0.7, -1.0, False),  # worse, and already less likely: enough
        (1.1, 1.0, True),
        (0.9, -1.0, True),
    ],
)
def test_the_clip_stops_the_gradient_on_one_side_only(ratio, advantage, moves):
    logprobs = doubles([[math.log(ratio)]]).requires_grad_()
    rollout = make_rollout(
        mask=[[1]], rewards=[0.0], sampled=[[0.0]], ref=[[0.0]], advantages=doubles([advantage])
    )
    output = PLAIN.loss(LossInputs(logprobs, rollout))
    (gradient,) = torch.autograd.grad(output.loss_B.sum(), logprobs)
    assert gradient.item() == pytest.approx(-advantage * ratio if moves else 0.0)
    assert output.metrics["clipped"].item() == (0.0 if moves else 1.0)


def test_k3_has_its_least_at_the_reference():
    # d/dlogp of k3 is 1 - pi_ref/pi: pulls up what the reference likes more, down what it does not.
    logprobs = doubles([[-1.0, -2.0, -3.0]]).requires_grad_()
    ref = [[-1.0, -2.0 + math.log(2), -3.0 - math.log(2)]]
    rollout = make_rollout(mask=[[1, 1, 1]], rewards=[0], sampled=ref, ref=ref)
    k3_BT = k3(LossInputs(logprobs, rollout))
    (gradient,) = torch.autograd.grad(k3_BT.sum(), logprobs)
    assert k3_BT.tolist()[0] == pytest.approx([0.0, K3, 0.5 + math.log(2) - 1])
    assert gradient.tolist()[0] == pytest.approx([0.0, -1.0, 0.5])


@pytest.mark.parametrize("size", [2, 3])
def test_expected_on_policy_gradient_without_normalisations(size):
    # The group's mean holds the sample itself, which shrinks the gradient by (G - 1) / G.
    policy, reference = ToyPolicy(1), ToyPolicy(2)
    algorithm = replace(PLAIN, group_size=size, length_scale=1.0)
    gradient = policy.gradient_of(-(size - 1) / size * objective(policy, reference, 0.0))
    loss = expected_loss(algorithm, policy, reference)
    assert policy.gradient_of(loss) == pytest.approx(gradient)


def test_expected_k3_is_the_kl_and_its_gradient_that_of_the_reverse():
    policy, reference = ToyPolicy(1), ToyPolicy(2)
    priced, free = replace(PLAIN, kl_coef=1.0, length_scale=1.0), replace(PLAIN, length_scale=1.0)
    k3_part = expected_loss(priced, policy, reference) - expected_loss(free, policy, reference)
    kl = objective(policy, reference, 0.0) - objective(policy, reference, 1.0)
    assert k3_part.item() == pytest.approx(kl.item())

    first, second = policy.first.log_softmax(-1), policy.second.log_softmax(-1)
    ref_first, ref_second = reference.first.log_softmax(-1), reference.second.log_softmax(-1)
    second_kl = (ref_second.exp() * (ref_second - second)).sum(-1)
    reverse = (ref_first.exp() * (ref_first - first)).sum() + first.exp().detach() @ second_kl
    assert policy.gradient_of(k3_part) == pytest.approx(policy.gradient_of(reverse))
