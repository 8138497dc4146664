import pytest
import torch

from astarpo.algorithms.rloo import RLOO
from tests.support.toy import ToyPolicy, apply, doubles, expected_loss, make_rollout, objective

# Log-ratios to the reference: 0.5 + 0.5, -1 and 0.
ROLLOUT = make_rollout(
    mask=[[1, 1], [1, 0], [1, 1]],
    rewards=[1.0, 0.0, 1.0],
    sampled=[[-1.0, -2.0], [-3.0, -9.0], [-1.0, -1.0]],
    ref=[[-1.5, -2.5], [-2.0, 5.0], [-1.0, -1.0]],
)


def test_hand_computed():
    # R = 0.9, 0.1, 1; less the mean of the other two: 0.35, -0.85, 0.5. Log-probs -3, -3, -2.
    output = apply(RLOO(group_size=3, kl_coef=0.1), ROLLOUT)
    assert output.metrics["advantage_size"].tolist() == pytest.approx([0.35, 0.85, 0.5])
    assert output.loss_B.tolist() == pytest.approx([1.05, -2.55, 1.0])


def test_without_kl_the_reference_does_not_matter():
    output = apply(RLOO(group_size=3, kl_coef=0.0), ROLLOUT)
    assert output.metrics["advantage_size"].tolist() == [0.5, 1.0, 0.5]


def test_gradient_is_the_advantage_wherever_the_policy_has_moved():
    for shift in (0.0, 2.0):
        logprobs = (ROLLOUT.sampled_logprobs_BT + shift).requires_grad_()
        output = apply(RLOO(group_size=3, kl_coef=0.0), ROLLOUT, logprobs)
        (gradient,) = torch.autograd.grad(output.loss_B.sum(), logprobs)
        assert gradient.tolist() == [[-0.5, -0.5], [1.0, 0.0], [-0.5, -0.5]]


def test_a_reward_for_all_of_a_group_changes_nothing():
    algorithm = RLOO(group_size=2, kl_coef=0.0)
    same = {"mask": [[1]] * 4, "sampled": [[-1.0]] * 4, "ref": [[-1.0]] * 4}
    raised = algorithm.prepare(make_rollout(rewards=[1, 0, 5, 4], **same)).advantages
    assert raised.tolist() == doubles([1, -1, 1, -1]).tolist()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_expected_on_policy_gradient_is_that_of_the_kl_regularised_objective(size, kl_coef):
    policy, reference = ToyPolicy(1), ToyPolicy(2)
    loss = expected_loss(RLOO(size, kl_coef), policy, reference)
    gradient = policy.gradient_of(-objective(policy, reference, kl_coef))
    assert policy.gradient_of(loss) == pytest.approx(gradient)
