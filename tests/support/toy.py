"""Inputs for the algorithms' tests, and a policy small enough to enumerate all it can say."""

import itertools
from dataclasses import replace

import torch

from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput, Rollout

SEQUENCES = list(itertools.product(range(3), repeat=2))
REWARDS = torch.tensor([0.0, 1, 0, 0, 0, 1, 1, 0, 0], dtype=torch.float64)


def doubles(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def make_rollout(*, mask, rewards, sampled, ref, values=None, critic=None, **other) -> Rollout:
    return Rollout(
        mask_BT=torch.as_tensor(mask, dtype=torch.bool),
        rewards_B=doubles(rewards),
        sampled_logprobs_BT=doubles(sampled),
        ref_logprobs_BT=doubles(ref),
        values_B=None if values is None else doubles(values),
        critic_BT=None if critic is None else doubles(critic),
        **other,
    )


def apply(algorithm: Algorithm, rollout: Rollout, logprobs=None, critic=None) -> LossOutput:
    """Prepares and takes the loss: on-policy and with an untouched critic unless given others."""
    return algorithm.loss(
        LossInputs(
            rollout.sampled_logprobs_BT if logprobs is None else logprobs,
            algorithm.prepare(rollout),
            rollout.critic_BT if critic is None else critic,
        )
    )


def random_case(seed: int, num_sequences: int, width: int = 6) -> tuple[Rollout, LossInputs]:
    """A rollout of mixed lengths, and the same with log-probs and critic moved from it.

    Returns:
        The rollout before `prepare`, and inputs (their rollout is that one) whose log-probs and
        critic are leaves to differentiate.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise() -> torch.Tensor:
        return torch.randn(num_sequences, width, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, width + 1, (num_sequences,), generator=generator)
    sampled = -noise().abs()
    rollout = Rollout(
        mask_BT=torch.arange(width) < lengths[:, None],
        rewards_B=noise()[:, 0],
        sampled_logprobs_BT=sampled,
        ref_logprobs_BT=sampled + 0.3 * noise(),
        values_B=noise()[:, 0],
        critic_BT=noise(),
        mean_length=float(lengths.double().mean()),
    )
    assert rollout.critic_BT is not None
    logprobs = (sampled + 0.3 * noise()).requires_grad_()
    critic = (rollout.critic_BT + 0.3 * noise()).requires_grad_()
    return rollout, LossInputs(logprobs, rollout, critic)


class ToyPolicy(torch.nn.Module):
    """Two tokens out of three, the second depending on the first: nine sequences in all."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))
        self.second = torch.nn.Parameter(
            torch.randn(3, 3, generator=generator, dtype=torch.float64)
        )

    def logprobs(self) -> torch.Tensor:
        """[9, 2] log-probs of every sequence's tokens."""
        first, second = self.first.log_softmax(-1), self.second.log_softmax(-1)
        return torch.stack([torch.stack([first[a], second[a, b]]) for a, b in SEQUENCES])

    def chances(self) -> torch.Tensor:
        """[9] probability of every sequence."""
        return self.logprobs().sum(-1).exp()

    def gradient_of(self, loss: torch.Tensor) -> list[float]:
        """Of a scalar, by all parameters."""
        gradients = torch.autograd.grad(loss, list(self.parameters()), allow_unused=True)
        return [x for g in gradients if g is not None for x in g.flatten().tolist()]


def expected_loss(
    algorithm: Algorithm, policy: ToyPolicy, reference: ToyPolicy, **rollout_fields
) -> torch.Tensor:
    """The loss's exact expectation over all the groups the policy itself can sample.

    Args:
        algorithm: Its samples of a prompt are one group.
        policy: Samples, and is differentiated.
        reference: Stays.
        rollout_fields: Further fields of the rollout, one row for each sequence.
    """
    size = algorithm.samples_per_prompt
    groups = list(itertools.product(range(len(SEQUENCES)), repeat=size))
    rows = [sequence for group in groups for sequence in group]
    logprobs = policy.logprobs()
    rollout = Rollout(
        mask_BT=torch.ones(len(SEQUENCES), 2, dtype=torch.bool),
        rewards_B=REWARDS,
        sampled_logprobs_BT=logprobs.detach(),
        ref_logprobs_BT=reference.logprobs().detach(),
    )
    rollout = replace(rollout, **rollout_fields).rows(rows, 2)
    output = apply(algorithm, rollout, logprobs[rows], rollout.critic_BT)
    chances = policy.chances().detach()[rows].view(-1, size).prod(dim=1)
    return (chances * output.loss_B.view(-1, size).mean(dim=1)).sum()


def objective(policy: ToyPolicy, reference: ToyPolicy, kl_coef: float) -> torch.Tensor:
    """E r - kl_coef KL(policy || reference), exactly."""
    logprobs = policy.logprobs().sum(-1)
    log_ratio = logprobs - reference.logprobs().detach().sum(-1)
    return (logprobs.exp() * (REWARDS - kl_coef * log_ratio)).sum()
