import pytest
import torch

from astarpo.algorithms.rebel import REBEL
from tests.support.toy import (
    REWARDS,
    ToyPolicy,
    apply,
    doubles,
    expected_loss,
    make_rollout,
    objective,
)

# Log-ratios of the policy that sampled to the reference: 0.5 + 0.5 and -1.
ROLLOUT = make_rollout(
    mask=[[1, 1], [1, 0]],
    rewards=[1.0, 0.0],
    sampled=[[-1.0, -2.0], [-3.0, -9.0]],
    ref=[[-1.5, -2.5], [-2.0, 5.0]],
)
# Moved since: 0.1 + 0.2 and -0.1.
LOGPROBS = doubles([[-0.9, -1.8], [-3.1, 7.0]])


@pytest.mark.parametrize(
    ("eta", "kl_coef", "residual"),
    [
        (1.0, 0.0, 0.4 - 1.0),  # the published equation
        (0.5, 0.0, 0.8 - 1.0),
        (1.0, 0.1, 0.4 - (0.9 - 0.1)),
    ],
)
def test_hand_computed(eta, kl_coef, residual):
    output = apply(REBEL(eta=eta, kl_coef=kl_coef), ROLLOUT, LOGPROBS)
    assert output.loss_B.tolist() == pytest.approx([residual**2] * 2)
    assert output.metrics["residual"].tolist() == pytest.approx([abs(residual)] * 2)


def test_mean_over_sequences_is_the_mean_over_pairs():
    two = ROLLOUT.rows([0, 1, 0, 0], 2)
    output = apply(REBEL(eta=1.0, kl_coef=0.0), two, LOGPROBS[[0, 1, 0, 0]])
    assert output.loss_B.tolist() == pytest.approx([0.36, 0.36, 0.0, 0.0])
    assert output.loss_B.mean().item() == pytest.approx((0.36 + 0.0) / 2)


def test_first_gradient_raises_the_better_and_lowers_the_worse_alike():
    logprobs = ROLLOUT.sampled_logprobs_BT.clone().requires_grad_()
    output = apply(REBEL(eta=0.5, kl_coef=0.0), ROLLOUT, logprobs)
    (gradient,) = torch.autograd.grad(output.loss_B.mean(), logprobs)
    # 2 (1/eta) (0 - 1), and its opposite.
    assert gradient.tolist() == [[-4.0, -4.0], [4.0, 0.0]]


def test_is_zero_when_the_log_ratios_explain_the_rewards():
    moved = ROLLOUT.sampled_logprobs_BT + doubles([[0.5, 0.5], [0.0, 0.0]])
    assert apply(REBEL(eta=1.0, kl_coef=0.0), ROLLOUT, moved).loss_B.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("eta", [1.0, 0.25])
@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_expected_first_gradient_is_that_of_the_kl_regularised_objective(eta, kl_coef):
    # E[(R - R')(grad ln pi - grad ln pi')] = 2 cov(R, grad ln pi), times -2/eta.
    policy, reference = ToyPolicy(1), ToyPolicy(2)
    loss = expected_loss(REBEL(eta=eta, kl_coef=kl_coef), policy, reference)
    gradient = policy.gradient_of(-4 / eta * objective(policy, reference, kl_coef))
    assert policy.gradient_of(loss) == pytest.approx(gradient)


@pytest.mark.parametrize("kl_coef", [0.0, 0.5])
def test_the_exact_step_makes_the_loss_zero(kl_coef):
    # pi ~ pi_old exp(eta R): with KL and eta = 1 / kl_coef one step lands on pi_ref exp(r/kl_coef).
    eta = 2.0
    old, reference = ToyPolicy(1).logprobs().detach(), ToyPolicy(2).logprobs().detach()
    rewards = REWARDS - kl_coef * (old - reference).sum(-1)
    step = (old.sum(-1) + eta * rewards).log_softmax(-1)
    moved = torch.stack([step - old[:, 1], old[:, 1]], dim=1)
    rows = [0, 1, 4, 5, 6, 8]
    rollout = make_rollout(
        mask=torch.ones(6, 2), rewards=REWARDS[rows], sampled=old[rows], ref=reference[rows]
    )
    loss_B = apply(REBEL(eta=eta, kl_coef=kl_coef), rollout, moved[rows]).loss_B
    assert loss_B.tolist() == pytest.approx([0.0] * 6, abs=1e-12)
    if kl_coef:
        best = (reference.sum(-1) + REWARDS / kl_coef).log_softmax(-1)
        assert step.tolist() == pytest.approx(best.tolist())
