import math
from dataclasses import replace

import pytest
import torch

from astarpo.algorithms.base import LossInputs
from astarpo.algorithms.ppo import PPO, gae, token_rewards, whiten
from tests.support.toy import (
    REWARDS,
    SEQUENCES,
    ToyPolicy,
    apply,
    doubles,
    make_rollout,
    objective,
    random_case,
)

PLAIN = PPO(clip=0.2, kl_coef=0.0, gae_gamma=1.0, gae_lambda=1.0, value_clip=0.5)
# Log-ratios to the reference: 0.5, -1, and 2 of a response of one token.
ROLLOUT = make_rollout(
    mask=[[1, 1], [1, 0]],
    rewards=[1.0, -1.0],
    sampled=[[-1.0, -2.0], [-3.0, math.nan]],
    ref=[[-1.5, -1.0], [-5.0, math.inf]],
    critic=[[0.5, 0.25], [-0.5, math.nan]],
    mean_length=1.5,
)


def test_token_rewards_by_hand():
    rewards = token_rewards(ROLLOUT, kl_coef=0.1)
    assert rewards.flatten().tolist() == pytest.approx([-0.05, 0.1 + 1.0, -0.2 - 1.0, 0.0])


def test_advantages_and_returns_by_hand():
    # Errors: 0.9 * 0.25 - 0.5 = -0.275 and 1 - 0.25 = 0.75; discount of an error 0.9 * 0.8 = 0.72.
    prepared = replace(PLAIN, gae_gamma=0.9, gae_lambda=0.8).prepare(ROLLOUT)
    raw = doubles([-0.275 + 0.72 * 0.75, 0.75, -0.5])
    assert prepared.returns_BT[ROLLOUT.mask_BT].tolist() == pytest.approx([0.765, 1.0, -1.0])
    centred = raw - raw.mean()
    whitened = centred / centred.square().mean().sqrt()
    assert prepared.advantages[ROLLOUT.mask_BT].tolist() == pytest.approx(whitened.tolist())
    assert prepared.advantages[1, 1] == 0


def test_lambda_one_gives_the_rewards_to_go_less_the_critic():
    rollout, _ = random_case(seed=1, num_sequences=5)
    rewards = token_rewards(rollout, kl_coef=0.2)
    values = rollout.critic_BT.masked_fill(~rollout.mask_BT, 0.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(gae(rewards, values, 1.0, 1.0), to_go - values)
    prepared = replace(PLAIN, kl_coef=0.2).prepare(rollout)
    assert torch.allclose(prepared.returns_BT, to_go)


def test_lambda_zero_gives_the_error_of_one_step():
    rollout, _ = random_case(seed=2, num_sequences=5)
    rewards = token_rewards(rollout, kl_coef=0.2)
    values = rollout.critic_BT.masked_fill(~rollout.mask_BT, 0.0)
    for row, length in enumerate(rollout.mask_BT.sum(1).tolist()):
        for t in range(length):
            after = 0.9 * values[row, t + 1] if t + 1 < length else 0.0
            error = rewards[row, t] + after - values[row, t]
            assert gae(rewards, values, 0.9, 0.0)[row, t].item() == pytest.approx(error.item())


def one_error_at_a_time(rewards, values, gamma, lam):
    """The definition of the advantages as a recursion, in double precision."""
    advantages, running, after = [], 0.0, 0.0
    for reward, value in zip(rewards.double().T.flip(0), values.double().T.flip(0), strict=True):
        running = reward + gamma * after - value + gamma * lam * running
        advantages.append(running)
        after = value
    return torch.stack(advantages[::-1], dim=1)


def test_advantages_of_five_tokens_by_hand():
    # Errors 1, 2, 3, 4, 5; each later one counts half as much as the one before it.
    errors = doubles([[1.0, 2.0, 3.0, 4.0, 5.0]])
    advantages = gae(errors, torch.zeros_like(errors), 1.0, 0.5)
    assert advantages.tolist() == [[3.5625, 5.125, 6.25, 6.5, 5.0]]


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("gamma", [0.99, 1.0])
@pytest.mark.parametrize("num_tokens", [1, 2, 7, 64, 1000, 4097])
def test_advantages_follow_the_recursion_in_single_precision(num_tokens, gamma, lam):
    generator = torch.Generator().manual_seed(num_tokens)
    rewards, values = torch.randn(2, 3, num_tokens, generator=generator)
    expected = one_error_at_a_time(rewards, values, gamma, lam)
    found = gae(rewards, values, gamma, lam)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max().clamp(min=1)


def test_whitened_over_the_tokens_of_all_responses():
    rollout, _ = random_case(seed=3, num_sequences=5)
    whitened = whiten(100 + 7 * rollout.critic_BT, rollout.mask_BT)
    inside = whitened[rollout.mask_BT]
    assert inside.mean().item() == pytest.approx(0.0, abs=1e-9)
    assert inside.std(correction=0).item() == pytest.approx(1.0)
    assert not whitened[~rollout.mask_BT].any()


def test_equal_advantages_are_whitened_to_zero():
    assert whiten(doubles([[3.0, 3.0]]), torch.tensor([[True, True]])).tolist() == [[0.0, 0.0]]


def test_loss_by_hand():
    # Advantages 2 and -1; ratios 1.5 and 0.9: -min(3, 2.4) and 0.9.
    # Critic: moved by 0.25 to 0.75 (return 2: error 1.5625); moved by 1, cut to 0.75 (return 1).
    rollout = replace(
        ROLLOUT.rows([0], 2), advantages=doubles([[2.0, -1.0]]), returns_BT=doubles([[2.0, 1.0]])
    )
    logprobs = rollout.sampled_logprobs_BT + doubles([[1.5, 0.9]]).log()
    output = PLAIN.loss(LossInputs(logprobs, rollout, doubles([[0.75, 1.25]])))
    critic = 1.25**2 + max(0.25**2, (0.25 + 0.5 - 1.0) ** 2)
    assert output.loss_B.item() == pytest.approx((-2.4 + 0.9 + 0.5 * critic) / 1.5)
    assert output.metrics["clipped"].item() == 0.5
    assert output.metrics["critic_error"].item() == pytest.approx((1.25**2 + 0.25**2) / 2)


@pytest.mark.parametrize(
    ("value", "gradient"),
    [
        (0.4, 0.4 - 2.0),  # within the clip
        (1.0, 0.0),  # far towards the return: enough
        (-1.0, -1.0 - 2.0),  # far away from it: back
    ],
)
def test_the_value_clip_stops_the_gradient_on_one_side_only(value, gradient):
    critic = doubles([[value]]).requires_grad_()
    rollout = make_rollout(
        mask=[[1]],
        rewards=[2.0],
        sampled=[[-1.0]],
        ref=[[-1.0]],
        critic=[[0.0]],
        advantages=doubles([[0.0]]),
        returns_BT=doubles([[2.0]]),
    )
    loss_B = PLAIN.loss(LossInputs(rollout.sampled_logprobs_BT, rollout, critic)).loss_B
    (found,) = torch.autograd.grad(loss_B.sum(), critic)
    assert found.item() == pytest.approx(gradient)


def test_policy_and_critic_do_not_touch_each_other():
    _, inputs = random_case(seed=4, num_sequences=4)
    rollout = PLAIN.prepare(inputs.rollout)

    def gradients(logprobs, critic):
        loss_B = PLAIN.loss(LossInputs(logprobs, rollout, critic)).loss_B
        return torch.autograd.grad(loss_B.sum(), [inputs.logprobs_BT, inputs.critic_BT])

    by_policy, by_critic = gradients(inputs.logprobs_BT, inputs.critic_BT)
    assert torch.equal(by_policy, gradients(inputs.logprobs_BT, inputs.critic_BT * 2)[0])
    assert torch.equal(by_critic, gradients(inputs.logprobs_BT * 2, inputs.critic_BT)[1])


def test_loss_is_the_mean_over_all_tokens_of_the_step():
    rollout, _ = random_case(seed=5, num_sequences=6)
    on_policy = apply(PLAIN, rollout).loss_B.mean()
    prepared = PLAIN.prepare(rollout)
    error = (rollout.critic_BT - prepared.returns_BT).square()[rollout.mask_BT].mean()
    # On-policy the policy's part is minus the mean advantage, which whitening makes 0.
    assert on_policy.item() == pytest.approx(0.5 * error.item())


@pytest.mark.parametrize("critic", ["none", "any"])
@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_expected_gradient_of_raw_advantages_is_that_of_the_objective(critic, kl_coef):
    # With gamma = lambda = 1 the critic is only a baseline: any function of the prefix will do.
    policy, reference = ToyPolicy(1), ToyPolicy(2)
    prefix_values = [[0.3, [0.7, -2.0, 5.0][first]] for first, _ in SEQUENCES]
    logprobs = policy.logprobs()
    rollout = make_rollout(
        mask=torch.ones(9, 2),
        rewards=REWARDS,
        sampled=logprobs.detach(),
        ref=reference.logprobs().detach(),
        critic=prefix_values if critic == "any" else torch.zeros(9, 2),
    )
    rollout = replace(PLAIN, kl_coef=kl_coef).prepare(rollout)
    raw = replace(rollout, advantages=rollout.returns_BT - rollout.critic_BT)
    loss_B = PLAIN.loss(LossInputs(logprobs, raw, rollout.critic_BT)).loss_B
    found = policy.gradient_of((policy.chances().detach() * loss_B).sum())
    assert found == pytest.approx(policy.gradient_of(-objective(policy, reference, kl_coef)))
