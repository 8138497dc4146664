"""Updates that must come out the same however many processes share them.

    torchrun --nproc-per-node K -m tests.training.sharded_cases POLICY OUT CASE...

runs cases on K ranks and writes what the first found; `test_sharded.py` compares.
"""

import math
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from astarpo.algorithms.choice import make_algorithm
from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models.critic import load_critic
from astarpo.models.fp32_head import take_float32_head
from astarpo.models.lora import adapt
from astarpo.models.policy import load_policy, make_policy, round_linears
from astarpo.models.sharded import shard, whole
from astarpo.runtime.distributed import OneProcess, open_ranks
from astarpo.runtime.stopping import StopRequested, StopSignal
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.learner import Learner
from astarpo.training.running_values import RunningValues
from astarpo.types import Answer, Prompt, TrainingStopped, Verdict
from tests.conftest import digit_problems
from tests.support.models import small_model
from tests.training.test_learner import make_config

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A rollout of so many answers and two updates from it.

    `model` is the policy of the tests, or a kind of `small_model`; `rounded` as on a GPU, where
    linear layers of what is frozen are stored in bf16. The policy has `moved` from its reference.
    """

    algorithm: str = "astar_po"
    model: str = "policy"
    shard_size: int | None = None
    bf16: bool = False
    rounded: bool = False
    fp32_head: bool = False
    moved: bool = True
    reward: float = 1.0
    stop_rank: int | None = None
    count: int = 12
    settings: dict = field(default_factory=dict)


GROUPS = {"group_size": 4}
ALL = {"micro_batch_tokens": 10**6, "minibatches": 1}  # a single micro-batch
CASES: dict[str, Case] = {
    "astar_po": Case(),
    "grpo": Case("grpo", settings=GROUPS),
    "rebel": Case("rebel"),
    "rloo": Case("rloo", settings=GROUPS),
    "ppo": Case("ppo"),
    "spo": Case("spo"),
    "copies": Case(shard_size=1),
    "copies of shards": Case("ppo", shard_size=2),
    "checkpointing": Case(settings={"gradient_checkpointing": True}),
    "offload": Case(settings={"policy_offload": True, "reference_offload": True}),
    "one micro-batch": Case("ppo", settings=ALL),
    "one answer": Case(count=1),
    "untied": Case(model="llama"),
    "capped": Case(model="gemma2"),
    "gpt2": Case(model="gpt2"),
    "lora": Case(settings={"lora_rank": 4}),
    "lora, checkpointing": Case(settings={"lora_rank": 4, "gradient_checkpointing": True}),
    "bf16": Case("grpo", bf16=True, settings=GROUPS),
    "bf16 critic": Case("ppo", bf16=True),
    "bf16, fp32 head": Case(bf16=True, fp32_head=True),
    "bf16 lora": Case(bf16=True, rounded=True, settings={"lora_rank": 4}),
    "bf16, unmoved": Case(bf16=True, rounded=True, moved=False),
    "not finite": Case(reward=math.nan),
    "signal": Case(stop_rank=1),
}


def results(path: str, names: Sequence[str], where: OneProcess, mesh: Any = None) -> dict[str, Any]:
    """What comes of each case: metrics and weights; or why it stopped, on each process.

    Args:
        path: The folder of the policy of the tests.
        names: Of cases.
        where: The processes.
        mesh: Makes a mesh from a `shard_size`; None leaves models whole.
    """
    found = {}
    for name in names:
        case = CASES[name]
        found[name] = _run(path, case, where, mesh(case.shard_size) if mesh else None)
    return found


def make_sides(path, case, config):
    """Policy and reference; the policy has moved away from it."""
    if case.model == "policy":
        policy, reference = load_policy(path, CPU), load_policy(path, CPU)
    else:
        vocabulary = load_policy(path, CPU).vocabulary
        policy, reference = (make_policy(small_model(case.model), vocabulary) for _ in "ab")
    if config.lora_rank:
        if case.rounded:
            round_linears(policy.model, torch.bfloat16)
        policy, reference = adapt(policy, config)
    else:
        policy.model.requires_grad_(True)
        if case.rounded:
            round_linears(reference.model, torch.bfloat16)
    if case.fp32_head:
        take_float32_head(policy.model)
        take_float32_head(reference.model)
    if case.moved:
        move(policy.model)
    dtype = torch.bfloat16 if case.bf16 else None
    return replace(policy, autocast_dtype=dtype), replace(reference, autocast_dtype=dtype)


def move(model, size=0.02):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn(parameter.shape, generator=generator)


def make_answers(policy, case, group):
    """Every third is right, and prompts differ in what they are worth."""
    problems = [p for p in digit_problems(case.count) for _ in range(group)][: case.count]
    tokenizer = policy.vocabulary.tokenizer
    prompts = [Prompt(p, tuple(tokenizer(p.prompt[0]["content"])["input_ids"])) for p in problems]
    requests = [Request(prompt.token_ids, i) for i, prompt in enumerate(prompts)]
    with torch.no_grad():
        done = HFEngine(policy, 16).generate(requests, Sampling(24))
    answers = []
    for i, (prompt, completion) in enumerate(zip(prompts, done, strict=True)):
        valued = replace(prompt, value=0.05 * (i // group))
        verdict = Verdict(case.reward * (i % 3 == 0), None, "ok")
        answers.append(Answer(valued, completion, "", verdict))
    return answers


def make_learner(path, case, where, mesh):
    """A learner of a case, its models shared out over a mesh; and the answers it learns from."""
    lr = 3e-5
    rates = {"lr": lr, "critic_lr": lr} if case.algorithm == "ppo" else {"lr": lr}
    settings = rates | {"micro_batch_tokens": 150, "grad_clip": 0.5} | case.settings
    config = make_config(algorithm=case.algorithm, **settings)
    algorithm = make_algorithm(config, 24)
    policy, reference = make_sides(path, case, config)
    answers = make_answers(policy, case, algorithm.samples_per_prompt)
    critic = load_critic(path, CPU) if algorithm.needs_critic else None
    if critic:
        move(critic)
    if mesh:
        dtype = policy.autocast_dtype
        shard(policy.model, mesh, dtype, offload=config.policy_offload)
        if reference.model is not policy.model:
            shard(reference.model, mesh, dtype, offload=config.reference_offload)
        if critic:
            shard(critic, mesh, dtype)
    running = None
    if algorithm.running:
        prompts = [answer.prompt for answer in answers]
        values = [prompt.value for prompt in prompts]
        running = RunningValues(algorithm.running, [p.problem.id for p in prompts], values)
    learner = Learner(
        policy, reference, algorithm, config, 1.0, critic, running=running, where=where
    )
    return learner, answers


def _run(path, case, where, mesh):
    learner, answers = make_learner(path, case, where, mesh)
    stopped, metrics = None, []
    with StopSignal():
        if where.rank == case.stop_rank:
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            metrics += [learner.update(answers, 1.0, Stopwatch()) for _ in range(2)]
        except (StopRequested, TrainingStopped) as error:
            stopped = repr(error)
    weights = {name: whole(p.detach()).clone() for name, p in learner.parameters.items()}
    everyone = where.gather([(stopped, metrics)])
    assert all(each == everyone[0] for each in everyone[1:])
    return {"stopped": stopped, "metrics": metrics, "weights": weights}


if __name__ == "__main__":
    torch.set_num_threads(1)
    path, out, *names = sys.argv[1:]
    with open_ranks("cpu") as where:
        found = results(path, names, where, where.mesh)
        if where.is_first:
            torch.save(found, out)
