"""The parts `update` and `algorithms` of `h100.py`: log-probs, gradients, whole steps, memory."""

from copy import deepcopy
from typing import Any

import torch
from bench import Bench, Row
from workload import (
    Seconds,
    Shape,
    frozen_copy,
    judge,
    make_completions,
    make_learner,
    make_prompts,
    random_policy,
    sample,
    timed,
    update,
)

from astarpo.learner import Learner
from astarpo.policy import Policy

# Name, algorithm, samples of a prompt; and whether its generation is measured, or takes as long a
# row as that of the row before it.
_RIVALS = [
    ("A*-PO", "astar_po", 1, True),
    ("PPO", "ppo", 1, False),
    ("GRPO(8)", "grpo", 8, True),
    ("REBEL", "rebel", 2, False),
    ("GRPO(16)", "grpo", 16, False),
]


def updates(bench: Bench) -> None:
    """A*-PO's, by micro-batch, with activations kept and computed again."""
    for shape in (bench.sizes.large, bench.sizes.small):
        policy = random_policy(shape, bench.device)
        reference = frozen_copy(policy)
        for budget in bench.sizes.budgets:
            for again in (False, True):
                settings = {"micro_batch_tokens": budget, "gradient_checkpointing": again}
                bench.attempt(
                    f"{shape.name}, {budget} tokens{', checkpointing' * again}",
                    _rates,
                    bench,
                    shape,
                    policy,
                    reference,
                    settings,
                )
        del policy, reference
        bench.free()


def _rates(
    bench: Bench, shape: Shape, policy: Policy, reference: Policy, settings: dict[str, Any]
) -> Row:
    learner = make_learner(policy, reference, "astar_po", minibatches=1, **settings)
    seconds = _measure(bench, learner, shape)
    count, length = bench.sizes.updated, bench.sizes.prompt + bench.sizes.response
    tokens, answered = count * length, count * bench.sizes.response
    products = shape.body * tokens + shape.head * answered
    attention = 2 * shape.layers * shape.hidden * tokens * length
    flops = (6 * products + 3 * attention) / seconds["update"]
    reference_flops = (2 * products + attention) / seconds["reference"]
    return {
        "tokens/s": tokens / seconds["update"],
        "of peak": flops / bench.peak,
        "of measured": flops / bench.measured_peak,
        "reference tokens/s": tokens / seconds["reference"],
        "of its peak": reference_flops / bench.peak,
        "GiB": bench.peak_gib(),
        "reserved": bench.reserved_gib(),
    }


def _measure(bench: Bench, learner: Learner, shape: Shape) -> Seconds:
    """Seconds of an update by phase, after one to warm up; its peak of memory is there to read."""
    sizes, group = bench.sizes, learner.algorithm.samples_per_prompt
    prompts = make_prompts(sizes.updated // group, sizes.prompt, shape.vocabulary)
    prompts = [prompt for prompt in prompts for _ in range(group)]
    answers = judge(prompts, make_completions(len(prompts), sizes.response, shape.vocabulary))
    update(learner, answers)
    bench.free()
    return update(learner, answers)


def algorithms(bench: Bench) -> None:
    """Seconds of a step on as many prompts, and memory, with the settings of the 1.5B recipes."""
    shape, name = bench.sizes.large, f"{bench.sizes.prompts} prompts"
    policy = random_policy(shape, bench.device)
    reference = frozen_copy(policy)
    sampling: Row = {}  # the last that was measured
    rows = {
        rival: bench.attempt(
            f"{name}, {rival}", _step, bench, policy, reference, algorithm, group, sampling, fresh
        )
        for rival, algorithm, group, fresh in _RIVALS
    }
    ours = rows.pop("A*-PO")
    if not ours:
        return
    for rival, row in rows.items():
        if row:
            less = 1 - ours["GiB"] / row["GiB"] if row["GiB"] else 0.0
            times = row["step s"] / ours["step s"]
            bench.row(f"A*-PO against {rival}", {"times as fast": times, "less memory": less})
    bench.row("stage 1 of these prompts, 8 each, once", {"s": 8 * sampling["s"]})


def _step(
    bench: Bench,
    policy: Policy,
    reference: Policy,
    algorithm: str,
    group: int,
    sampling: Row,
    fresh: bool,
) -> Row:
    """A step from its phases, each measured at its real batch and multiplied."""
    shape, sequences = bench.sizes.large, bench.sizes.prompts * group
    learner = make_learner(
        policy,
        reference,
        algorithm,
        _critic(policy) if algorithm == "ppo" else None,
        group_size=max(2, group),
        gradient_checkpointing=True,
        micro_batch_tokens=bench.sizes.budgets[0],
        minibatches=1,
    )
    seconds = _measure(bench, learner, shape)
    updating, reserved = bench.peak_gib(), bench.reserved_gib()
    optimizer = _optimizer_seconds(learner)
    held = bench.held_gib()
    if fresh or not sampling:
        sampling |= _sample(bench, policy, group)
    generating = held + sampling["GiB"]
    times = sequences / bench.sizes.updated
    phases = {
        "generate s": sampling["s"] * group,
        "reference s": seconds["reference"] * times,
        "update s": max(0.0, seconds["update"] - optimizer) * times + 2 * optimizer,
    }
    return {
        "step s": sum(phases.values()),
        **phases,
        "GiB": max(updating, generating),
        "generating": generating,
        "updating": updating,
        "reserved": reserved,
    }


def _optimizer_seconds(learner: Learner) -> float:
    for parameter in learner.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    seconds = timed(learner.optimizer.step)
    learner.optimizer.zero_grad(set_to_none=True)
    return seconds


def _sample(bench: Bench, policy: Policy, group: int) -> Row:
    """Sampling one batch of rows: seconds, and memory beside all that training holds."""
    sizes = bench.sizes
    prompts = make_prompts(sizes.prompts // group, sizes.prompt, policy.model.config.vocab_size)
    bench.free()
    before = bench.held_gib()
    seconds = timed(lambda: sample(policy, prompts, group, sizes.response, sizes.prompts))
    return {"s": seconds, "GiB": bench.peak_gib() - before}


def _critic(policy: Policy) -> Any:
    """Of the policy's shape, of random weights."""
    from transformers import Qwen2ForTokenClassification

    config = deepcopy(policy.model.config)
    config.num_labels = 1
    with policy.device:
        return Qwen2ForTokenClassification(config).eval()
