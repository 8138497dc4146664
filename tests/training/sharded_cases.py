"""Updates that must come out the same however many processes share them.

    torchrun --nproc-per-node K -m tests.training.sharded_cases POLICY OUT CASE...

runs them on K ranks; `results` in this process alone. `test_sharded.py` compares.
"""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from astarpo.algorithms.choice import make_algorithm
from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models.critic import load_critic
from astarpo.models.fp32_head import take_float32_head
from astarpo.models.logprobs import token_logprobs
from astarpo.models.lora import adapt
from astarpo.models.policy import load_policy, make_policy, round_linears
from astarpo.models.sharded import shard, whole
from astarpo.runtime.distributed import OneProcess, open_ranks
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.learner import Learner
from astarpo.training.running_values import RunningValues
from astarpo.types import Answer, Prompt, TrainingStopped, UserError, Verdict
from tests.conftest import digit_problems
from tests.support.models import small_model
from tests.training.test_learner import make_config

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A rollout of so many answers and two updates from it.

    `model` is the policy of the tests, or a kind of `small_model`; `rounded` as on a GPU, where
    linear layers of what is frozen are stored in bf16.
    """

    algorithm: str = "astar_po"
    model: str = "policy"
    shard_size: int | None = None
    bf16: bool = False
    rounded: bool = False
    fp32_head: bool = False
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
}


def results(path: str, names, where: OneProcess, mesh=None) -> dict:
    found = {}
    for name in names:
        if where.is_first: print("CASE", name, flush=True)
        found[name] = _run(path, CASES[name], where, mesh and mesh(CASES[name].shard_size))
    return found


def make_sides(path, case, config):
    """Policy and reference; the policy has moved away from it."""
    if case.model == "policy":
        policy, reference = load_policy(path, CPU), load_policy(path, CPU)
    else:
        vocabulary = load_policy(path, CPU).vocabulary
        policy, reference = (make_policy(small_model(case.model), vocabulary) for _ in "ab")
    if case.rounded:
        round_linears(policy.model, torch.bfloat16)
    if config.lora_rank:
        policy, reference = adapt(policy, config)
    else:
        policy.model.requires_grad_(True)
    if case.fp32_head:
        take_float32_head(policy.model)
        take_float32_head(reference.model)
    move(policy.model)
    dtype = torch.bfloat16 if case.bf16 else None
    return replace(policy, autocast_dtype=dtype), replace(reference, autocast_dtype=dtype)


def move(model, size=0.02):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn(parameter.shape, generator=generator)


def make_answers(policy, count, group):
    """Every third is right; what they are worth differs."""
    problems = [problem for problem in digit_problems(count) for _ in range(group)][:count]
    tokenizer = policy.vocabulary.tokenizer
    prompts = [Prompt(p, tuple(tokenizer(p.prompt[0]["content"])["input_ids"])) for p in problems]
    requests = [Request(p.token_ids, i) for i, p in enumerate(prompts)]
    with torch.no_grad():
        done = HFEngine(policy, 16).generate(requests, Sampling(24))
    return [
        Answer(replace(prompt, value=0.05 * (i // group)), each, "", Verdict(float(i % 3 == 0), None, "ok"))
        for i, (prompt, each) in enumerate(zip(prompts, done, strict=True))
    ]


def _run(path, case, where, mesh):
    defaults = {"lr": 1e-4, "critic_lr": 1e-4} if case.algorithm == "ppo" else {"lr": 1e-4}
    config = make_config(
        algorithm=case.algorithm, **defaults | {"micro_batch_tokens": 150, "grad_clip": 0.5} | case.settings
    )
    algorithm = make_algorithm(config, 24)
    policy, reference = make_sides(path, case, config)
    answers = make_answers(policy, case.count, algorithm.samples_per_prompt)
    critic = None
    if algorithm.needs_critic:
        critic = load_critic(path, CPU)
        move(critic)
    if mesh:
        shard(policy.model, mesh, policy.autocast_dtype, offload=config.policy_offload)
        if reference.model is not policy.model:
            shard(reference.model, mesh, policy.autocast_dtype, offload=config.reference_offload)
        if critic:
            shard(critic, mesh, policy.autocast_dtype)
    rule = algorithm.running
    running = RunningValues(rule, [a.prompt for a in answers]) if rule else None
    learner = Learner(
        policy, reference, algorithm, config, 1.0, critic, running=running, where=where
    )
    metrics = [learner.update(answers, 1.0, Stopwatch()) for _ in range(2)]
    assert where.any(metrics != where.agree(metrics)) is False
    weights = {name: whole(p.detach()).clone() for name, p in learner.parameters.items()}
    return {"metrics": metrics, "weights": weights}


if __name__ == "__main__":
    torch.set_num_threads(1)
    path, out, *names = sys.argv[1:]
    with open_ranks(CPU) as where:
        found = results(path, names, where, where.mesh)
        if where.is_first:
            torch.save(found, out)
