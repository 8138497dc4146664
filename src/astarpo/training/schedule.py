"""What each step works on: its learning rate, its prompts, and its mini- and micro-batches.

All of it follows from the config, the seed and the step, so a resumed run needs no state for it;
but where prompts are drawn by weights, those are state, which checkpoints hold.

Shapes: _B sequences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from astarpo.algorithms.base import Algorithm
from astarpo.config import TrainConfig
from astarpo.models.batch import TokenBatch, micro_batches
from astarpo.models.policy import Policy
from astarpo.runtime.seeding import derive_seed, epoch_stream, weighted_draw
from astarpo.runtime.transfer import send
from astarpo.types import Answer, Prompt


def lr_scale(step: int, num_steps: int, config: TrainConfig) -> float:
    """Share of the peak learning rate in a step: linear warm-up, then the schedule.

    Args:
        step: From 1.
        num_steps: Steps of the whole run; linear and cosine come down to 0 just after the last.
        config: Its `warmup_steps` and `schedule` count.
    """
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    progress = (step - 1 - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    match config.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - progress
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))


def step_places(count: int, config: TrainConfig, step: int) -> list[int]:
    """Which of so many prompts a step takes: epoch after epoch, each in an order of its own."""
    order = derive_seed(config.seed, "order")
    return epoch_stream(order, step - 1, count, config.prompts_per_step)


def step_prompts(
    prompts: Sequence[Prompt],
    algorithm: Algorithm,
    config: TrainConfig,
    step: int,
    weights_P: ArrayLike | None = None,
) -> tuple[list[Prompt], list[int]]:
    """The prompts that a step samples from, and the seed of each completion.

    Every epoch goes through the prompts in an order of its own; with weights each step draws them
    anew. Steps count from 1.

    Returns:
        [B] prompts, each as often as the algorithm samples it, side by side; [B] seeds.
    """
    if weights_P is None:
        chosen = step_places(len(prompts), config, step)
    else:
        draw = derive_seed(config.seed, "order", step)
        chosen = weighted_draw(draw, weights_P, config.prompts_per_step)
    each = [prompts[i] for i in chosen]
    repeated = [prompt for prompt in each for _ in range(algorithm.samples_per_prompt)]
    seeds = [derive_seed(config.seed, "stage2", step, k) for k in range(len(repeated))]
    return repeated, seeds


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through a model together.

    Attributes:
        index_B: [B] the places of the sequences in the rollout.
        tokens: Their token ids; reference, critic and policy all see these very tensors.
    """

    index_B: Tensor
    tokens: TokenBatch


def plan_minibatches(
    answers: Sequence[Answer], algorithm: Algorithm, config: TrainConfig, policy: Policy
) -> list[list[MicroBatch]]:
    """Cuts a rollout into mini-batches of whole groups, and those into micro-batches.

    A mini-batch is what one step of the optimiser learns from. A micro-batch is what fits into
    memory; how a mini-batch is cut into them does not change the result.
    """
    group, coupled = algorithm.samples_per_prompt, algorithm.coupled
    lengths = [sum(map(len, answer.sequence)) for answer in answers]
    minibatches = []
    for prompts in split(len(answers) // group, config.minibatches):
        starts = range(prompts.start * group, prompts.stop * group, coupled)
        longest = [max(lengths[start : start + coupled]) for start in starts]
        part = []
        for units in micro_batches(longest, config.micro_batch_tokens // coupled):
            indices = [starts[unit] + i for unit in units for i in range(coupled)]
            tokens = policy.collate([answers[i].sequence for i in indices])
            part.append(MicroBatch(send(torch.tensor(indices), policy.device), tokens))
        minibatches.append(part)
    return minibatches


def split(count: int, parts: int) -> list[range]:
    """Cuts `range(count)` into at most `parts` runs whose lengths differ by at most one."""
    parts = min(parts, count)
    edges = [count * i // parts for i in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(edges)]
