import itertools
import math

import pytest
import torch

from astarpo.algorithms.astar_po import AStarPO
from astarpo.algorithms.rollout_baseline import AStarPOByRollout, rollout_baseline
from tests.support.toy import REWARDS, ToyPolicy, apply, doubles, make_rollout, objective

HALF, QUARTER = math.log(0.5), math.log(0.25)


def of_chances(chances, rewards, mask=None):
    logprobs = [[math.log(p) for p in row] for row in chances]
    mask = mask or [[1] * len(row) for row in chances]
    return make_rollout(mask=mask, rewards=rewards, sampled=logprobs, ref=logprobs)


def test_hand_computed():
    # Weights .25 + .5625 = .8125; 0 + .25; .5625, its second token not its own.
    chances = [[0.5, 0.25], [1.0, 0.5], [0.25, 0.1]]
    rollout = of_chances(chances, [1.0, 0.0, 2.0], mask=[[1, 1], [1, 1], [1, 0]])
    others = [
        (0.25 * 0 + 0.5625 * 2) / (0.25 + 0.5625),
        (0.8125 * 1 + 0.5625 * 2) / (0.8125 + 0.5625),
        (0.8125 * 1 + 0.25 * 0) / (0.8125 + 0.25),
    ]
    assert rollout_baseline(rollout).tolist() == pytest.approx(others)
    advantages = AStarPOByRollout(1e-3).prepare(rollout).advantages
    assert advantages is not None
    assert advantages.tolist() == pytest.approx([1 - others[0], -others[1], 2 - others[2]])


def test_the_loss_is_that_of_the_paper_with_b_for_v_star():
    rollout = of_chances([[0.5], [0.25]], [1.0, 0.0])
    values = make_rollout(
        mask=[[1], [1]],
        rewards=[1.0, 0.0],
        sampled=[[HALF], [QUARTER]],
        ref=[[HALF], [QUARTER]],
        values=[0.0, 1.0],
    )
    moved = doubles([[-1.0], [-2.0]])
    ours = apply(AStarPOByRollout(0.1), rollout, moved)
    assert torch.equal(ours.loss_B, apply(AStarPO(0.1), values, moved).loss_B)


@pytest.mark.parametrize("chances", [[[0.5]], [[1.0], [1.0]], [[1.0], [0.5]]])
def test_is_zero_where_the_others_weigh_nothing(chances):
    found = rollout_baseline(of_chances(chances, [1.0] * len(chances))).tolist()
    assert found[-1] == 0
    assert all(math.isfinite(each) for each in found)


def test_leaves_the_expected_gradient_as_it_is():
    """Over all pairs of answers that the policy can give, each with the other's baseline."""
    beta = 0.3
    policy, reference = ToyPolicy(1), ToyPolicy(2)
    logprobs, ref = policy.logprobs(), reference.logprobs().detach()
    chances = policy.chances().detach()
    loss = torch.zeros((), dtype=torch.float64)
    for pair in itertools.product(range(9), repeat=2):
        rows = list(pair)
        sampled = logprobs[rows].detach()
        rollout = make_rollout(
            mask=[[1, 1]] * 2, rewards=REWARDS[rows], sampled=sampled, ref=ref[rows]
        )
        output = apply(AStarPOByRollout(beta), rollout, logprobs[rows])
        loss = loss + chances[rows].prod() * output.loss_B.mean()
    gradient = policy.gradient_of(-2 * beta * objective(policy, reference, beta))
    assert policy.gradient_of(loss) == pytest.approx(gradient)


@pytest.mark.parametrize("seed", range(5))
def test_its_weight_is_a_half_to_one_times_the_squared_norm_by_the_logits(seed):
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(seed)).double() * 3
    logits.requires_grad_()
    chosen = torch.arange(20) % 7
    logprobs = logits.log_softmax(-1)[torch.arange(20), chosen]
    (gradient,) = torch.autograd.grad(logprobs.sum(), logits)
    squared = gradient.square().sum(-1)
    weight = (1 - logprobs.detach().exp()).square()
    assert (weight <= squared * (1 + 1e-9)).all()
    assert (weight >= squared / 2 * (1 - 1e-9)).all()


def test_leaves_less_noise_than_the_chance_of_success():
    """Exactly, of one prompt whose wrong answers are the rarer ones, in a large rollout."""
    chances = doubles([0.5, 0.2, 0.1, 0.1, 0.1])
    rewards = doubles([1.0, 0, 0, 0, 0])
    logits = chances.log().requires_grad_()
    norms = []
    for each in range(5):
        (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[each], logits)
        norms.append(gradient.square().sum())
    norm = torch.stack(norms)

    def noise(baseline: float) -> float:
        return float((chances * (rewards - baseline) ** 2 * norm).sum())

    weight = chances * (1 - chances) ** 2  # what each kind of answer weighs in a large rollout
    found = float((weight * rewards).sum() / weight.sum())
    assert found < 0.5
    assert noise(found) < 0.95 * noise(0.5)
    assert noise(found) < noise(0.0)
    best = float((chances * norm * rewards).sum() / (chances * norm).sum())
    assert noise(found) == pytest.approx(noise(best), rel=0.01)
