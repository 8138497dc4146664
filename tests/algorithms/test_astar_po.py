import math

import pytest
import torch

from astarpo.algorithms.astar_po import AStarPO
from tests.support.toy import (
    REWARDS,
    ToyPolicy,
    apply,
    doubles,
    expected_loss,
    make_rollout,
    objective,
)


def v_table(value: float) -> torch.Tensor:
    return torch.full((9,), value, dtype=torch.float64)


def test_hand_computed():
    # Sequence 1: log-ratio (-1+1.5) + (-2+2.2) = 0.7; residual 0.1 * 0.7 + 0.4 - 1 = -0.53.
    # Sequence 2: one token, log-ratio -0.5 - (-0.2) = -0.3; residual -0.03 + 0.25 - 0 = 0.22.
    rollout = make_rollout(
        mask=[[1, 1], [1, 0]],
        rewards=[1.0, 0.0],
        sampled=[[-1.0, -2.0], [-0.5, -9.0]],
        ref=[[-1.5, -2.2], [-0.2, -1.0]],
        values=[0.4, 0.25],
    )
    output = apply(AStarPO(beta=0.1), rollout)
    assert output.metrics["residual"].tolist() == pytest.approx([-0.53, 0.22])
    assert output.loss_B.tolist() == pytest.approx([0.2809, 0.0484])


def test_masked_tokens_do_not_count_even_if_infinite():
    infinite = [[-1.0, -math.inf]]
    rollout = make_rollout(mask=[[1, 0]], rewards=[1.0], sampled=infinite, ref=infinite, values=[0])
    assert apply(AStarPO(beta=1.0), rollout).loss_B.tolist() == [1.0]


def test_the_policy_that_sampled_does_not_matter():
    fields = {"mask": [[1]], "rewards": [1.0], "ref": [[-1.0]], "values": [0.5]}
    losses = [
        apply(
            AStarPO(beta=0.1), make_rollout(sampled=[[at]], **fields), doubles([[-2.0]])
        ).loss_B.item()
        for at in (-1.0, -7.0)
    ]
    assert losses == pytest.approx([0.36, 0.36])


def test_gradient_sign_follows_the_residual():
    logprobs = torch.tensor([[-1.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    same = [[-1.0], [-1.0]]
    rollout = make_rollout(
        mask=[[1], [1]], rewards=[1.0, 0.0], sampled=same, ref=same, values=[0.5, 0.5]
    )
    apply(AStarPO(beta=1e-3), rollout, logprobs).loss_B.sum().backward()
    # d/dlogp of residual^2 is 2 beta residual: -0.5 for the right answer, +0.5 for the wrong one.
    assert logprobs.grad is not None
    assert logprobs.grad.squeeze().tolist() == pytest.approx([-1e-3, 1e-3])


@pytest.mark.parametrize("v_star", [0.0, 0.4, 7.0])
def test_expected_on_policy_gradient_is_that_of_the_kl_regularised_objective(v_star):
    beta = 0.3
    policy, reference = ToyPolicy(1), ToyPolicy(2)
    loss = expected_loss(AStarPO(beta), policy, reference, values_B=v_table(v_star))
    gradient = policy.gradient_of(-2 * beta * objective(policy, reference, beta))
    assert policy.gradient_of(loss) == pytest.approx(gradient)


def test_reaches_the_closed_form_optimum():
    beta = 0.5
    policy, reference = ToyPolicy(1), ToyPolicy(2)
    ref_chances = reference.chances().detach()
    optimum = ref_chances * (REWARDS / beta).exp()
    v_star = v_table(beta * float(optimum.sum().log()))
    optimum = optimum / optimum.sum()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        loss = expected_loss(AStarPO(beta), policy, reference, values_B=v_star)
        loss.backward()
        optimizer.step()
    chances = policy.chances().detach()
    assert chances.tolist() == pytest.approx(optimum.tolist(), abs=1e-4)
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    # Binary rewards: pi* succeeds with p e^(1/beta) / (1 - p + p e^(1/beta)).
    p = float((ref_chances * REWARDS).sum())
    best = p * math.exp(1 / beta) / (1 - p + p * math.exp(1 / beta))
    assert float((chances * REWARDS).sum()) == pytest.approx(best, abs=1e-4)


def test_loss_stays_above_zero_at_the_optimum_when_betas_differ():
    reference = ToyPolicy(2)
    optimum = ToyPolicy(2)
    beta1, beta2 = 0.5, 0.1
    ref = reference.chances().detach()
    target = (ref * (REWARDS / beta2).exp()) / (ref * (REWARDS / beta2).exp()).sum()
    joint = target.reshape(3, 3)
    with torch.no_grad():
        optimum.first.copy_(joint.sum(1).log())
        optimum.second.copy_((joint / joint.sum(1, keepdim=True)).log())

    def loss_at_optimum(v_star: float) -> float:
        loss = expected_loss(AStarPO(beta2), optimum, reference, values_B=v_table(v_star))
        return float(loss.detach())

    v_star = beta1 * float((ref * (REWARDS / beta1).exp()).sum().log())
    v_exact = beta2 * float((ref * (REWARDS / beta2).exp()).sum().log())
    assert loss_at_optimum(v_exact) == pytest.approx(0.0)
    assert loss_at_optimum(v_star) == pytest.approx((v_star - v_exact) ** 2)
