"""What holds of every algorithm."""

from dataclasses import fields, replace

import pytest
import torch

from astarpo.algorithms import ALGORITHMS
from astarpo.algorithms.astar_po import AStarPO
from astarpo.algorithms.base import Algorithm, LossInputs
from astarpo.algorithms.grpo import GRPO
from astarpo.algorithms.rollout_baseline import AStarPOByRollout
from astarpo.config import AlgorithmConfig
from tests.support.toy import random_case

CONFIG = AlgorithmConfig(group_size=4, kl_coef=0.1, gae_lambda=0.8)
NUM_SEQUENCES = 8
VARIANTS = {
    "astar_po-rollout": {"baseline_from": "rollout"},
    "grpo-dr": {"length_normalize": False, "std_normalize": False},
}
MADE = [pytest.param(make(CONFIG, 7), id=name) for name, make in ALGORITHMS.items()] + [
    pytest.param(ALGORITHMS[name.split("-")[0]](CONFIG.model_copy(update=changes), 7), id=name)
    for name, changes in VARIANTS.items()
]


def gradients(algorithm: Algorithm, inputs: LossInputs) -> list[torch.Tensor]:
    """Of the sum over sequences, by log-probs and critic."""
    loss = algorithm.loss(inputs).loss_B.sum()
    leaves = [inputs.logprobs_BT, inputs.critic_BT]
    found = torch.autograd.grad(loss, [x for x in leaves if x is not None], allow_unused=True)
    return [torch.zeros(0) if g is None else g for g in found]


def test_settings_reach_the_algorithms():
    made = {name: make(CONFIG, 7) for name, make in ALGORITHMS.items()}
    assert made["grpo"] == GRPO(4, CONFIG.clip, 0.1, std_normalize=True, length_scale=None)
    assert {name: a.samples_per_prompt for name, a in made.items()} == {
        "astar_po": 1,
        "grpo": 4,
        "ppo": 1,
        "rebel": 2,
        "rloo": 4,
        "spo": 1,
    }
    assert [name for name, a in made.items() if a.needs_values] == ["astar_po", "spo"]
    assert [name for name, a in made.items() if a.running] == ["spo"]
    assert [name for name, a in made.items() if a.needs_critic] == ["ppo"]
    assert {name: a.coupled for name, a in made.items() if a.coupled > 1} == {"rebel": 2}
    dr_grpo = CONFIG.model_copy(update=VARIANTS["grpo-dr"])
    assert ALGORITHMS["grpo"](dr_grpo, 7) == GRPO(4, CONFIG.clip, 0.1, False, 7)
    other_beta = CONFIG.model_copy(update={"beta2": 0.3})
    assert ALGORITHMS["astar_po"](other_beta, 7) == AStarPO(0.3)
    by_rollout = ALGORITHMS["astar_po"](CONFIG.model_copy(update={"baseline_from": "rollout"}), 7)
    assert (by_rollout, by_rollout.needs_values) == (AStarPOByRollout(CONFIG.beta2), False)


@pytest.mark.parametrize("algorithm", MADE)
def test_a_loss_and_detached_metrics_for_each_sequence(algorithm):
    _, inputs = random_case(seed=1, num_sequences=NUM_SEQUENCES)
    output = algorithm.loss(replace(inputs, rollout=algorithm.prepare(inputs.rollout)))
    assert output.loss_B.shape == (NUM_SEQUENCES,)
    assert output.loss_B.requires_grad
    for values_B in output.metrics.values():
        assert values_B.shape == (NUM_SEQUENCES,)
        assert not values_B.requires_grad


@pytest.mark.parametrize("algorithm", MADE)
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -float("inf"), 1e3])
def test_padding_may_hold_anything(algorithm, filler):
    rollout, inputs = random_case(seed=2, num_sequences=NUM_SEQUENCES)
    outside = ~rollout.mask_BT

    def filled(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().masked_fill(outside, filler)

    noisy = replace(
        rollout,
        **{
            each.name: filled(value)
            for each in fields(rollout)
            if isinstance(value := getattr(rollout, each.name), torch.Tensor)
            and value.ndim == 2
            and each.name != "mask_BT"
        },
    )
    clean = replace(inputs, rollout=algorithm.prepare(rollout))
    dirty = LossInputs(
        filled(inputs.logprobs_BT).requires_grad_(),
        algorithm.prepare(noisy),
        filled(inputs.critic_BT).requires_grad_(),
    )
    assert torch.equal(algorithm.loss(clean).loss_B, algorithm.loss(dirty).loss_B)
    for one, other in zip(gradients(algorithm, clean), gradients(algorithm, dirty), strict=True):
        assert torch.equal(one, other)
        assert not other.numel() or not other[outside].any()
    for name, values_B in algorithm.loss(clean).metrics.items():
        assert torch.equal(values_B, algorithm.loss(dirty).metrics[name])


@pytest.mark.parametrize("algorithm", MADE)
@pytest.mark.parametrize("num_parts", [2, 4])
def test_gradient_does_not_depend_on_the_micro_batches(algorithm, num_parts):
    rollout, inputs = random_case(seed=3, num_sequences=NUM_SEQUENCES)
    rollout = algorithm.prepare(rollout)
    whole = gradients(algorithm, replace(inputs, rollout=rollout))

    generator = torch.Generator().manual_seed(num_parts)
    units = torch.randperm(NUM_SEQUENCES // algorithm.coupled, generator=generator)
    summed = [torch.zeros_like(g) for g in whole]
    for part in units.chunk(num_parts):
        rows = [int(u) * algorithm.coupled + i for u in part for i in range(algorithm.coupled)]
        width = int(rollout.mask_BT[rows].sum(1).max())
        cut = LossInputs(
            inputs.logprobs_BT[rows, :width],
            rollout.rows(rows, width),
            inputs.critic_BT[rows, :width],
        )
        loss = algorithm.loss(cut).loss_B.sum()
        found = torch.autograd.grad(loss, [inputs.logprobs_BT, inputs.critic_BT], allow_unused=True)
        for total, gradient in zip(summed, found, strict=True):
            if gradient is not None:
                total += gradient
    for one, other in zip(whole, summed, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("algorithm", MADE)
def test_better_answers_become_likelier(algorithm):
    # On-policy and at the reference, the better half of each pair of samples is pushed up.
    rollout, _ = random_case(seed=4, num_sequences=NUM_SEQUENCES)
    rollout = replace(
        rollout,
        rewards_B=torch.tensor([1.0, 0.0] * (NUM_SEQUENCES // 2), dtype=torch.float64),
        ref_logprobs_BT=rollout.sampled_logprobs_BT,
        values_B=torch.full_like(rollout.rewards_B, 0.5),
        critic_BT=torch.full_like(rollout.sampled_logprobs_BT, 0.5),
    )
    logprobs = rollout.sampled_logprobs_BT.clone().requires_grad_()
    inputs = LossInputs(logprobs, algorithm.prepare(rollout), rollout.critic_BT)
    (gradient,) = torch.autograd.grad(algorithm.loss(inputs).loss_B.sum(), logprobs)
    assert (gradient[0::2][rollout.mask_BT[0::2]] < 0).all()
    assert (gradient[1::2][rollout.mask_BT[1::2]] > 0).all()
