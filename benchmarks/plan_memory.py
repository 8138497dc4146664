r"""Peak memory of real updates on this CPU against what `astarpo plan` says it would be.

    python benchmarks/plan_memory.py [--out FILE.json]

Each case is a process of its own, one thread: it loads Python and PyTorch, makes a small update so
that libraries are warm, and notes its resident memory; then it makes models and two updates of the
learner, and notes the most that was resident. The difference is what the system counted, whatever
the plan counts. glibc is told to give freed memory back at once (`MALLOC_MMAP_THRESHOLD_`); by
default it keeps some, which belongs to no tensor.

On a GPU nothing of this has been measured.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import workload
from workload import Shape

from astarpo.config import TrainConfig
from astarpo.models.lora import adapt
from astarpo.planning.shape import ModelShape
from astarpo.planning.tracing import Load, trace_anew
from astarpo.runtime.memory import peak_resident_bytes

RESULTS = Path(__file__).parent / "results" / "plan_memory.json"
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """An update to measure.

    Attributes:
        shape: Of the model.
        prompt: Tokens of each prompt.
        answer: Tokens of each answer.
        settings: Of training.
    """

    shape: Shape
    prompt: int
    answer: int
    settings: dict[str, Any] = field(default_factory=dict)


_WIDE = Shape("wide vocabulary", 256, 4, 4, 2, 768, 32_000)
_DEEP = Shape("deep", 256, 24, 4, 2, 768, 2_000)
_LARGE = Shape("large", 768, 12, 12, 4, 2048, 32_000)
_MIDDLE = Shape("middling", 512, 8, 8, 8, 1536, 8_000)

_RECOMPUTED = {"gradient_checkpointing": True}

CASES = {
    "11M, wide vocabulary": Case(_WIDE, 64, 192, {"micro_batch_tokens": 2048}),
    "19M, 24 layers": Case(_DEEP, 64, 192, {"micro_batch_tokens": 1024}),
    "19M, 24 layers, recomputed": Case(_DEEP, 64, 192, {"micro_batch_tokens": 2048, **_RECOMPUTED}),
    "31M, PPO and its critic": Case(
        _MIDDLE, 32, 96, {"micro_batch_tokens": 512, "algorithm": "ppo"}
    ),
    "31M, LoRA": Case(_MIDDLE, 32, 96, {"micro_batch_tokens": 1024, "lora_rank": 16}),
    "31M, GRPO, recomputed": Case(
        _MIDDLE,
        32,
        96,
        {"micro_batch_tokens": 1024, "algorithm": "grpo", "group_size": 8, **_RECOMPUTED},
    ),
    "31M, answers of 2048": Case(_MIDDLE, 64, 1984, {"micro_batch_tokens": 2048, **_RECOMPUTED}),
    "100M, recomputed": Case(_LARGE, 64, 192, {"micro_batch_tokens": 512, **_RECOMPUTED}),
}
"""Models by their millions of parameters."""

SMALL = {
    "3M": Case(Shape("small", 192, 6, 4, 2, 576, 4_000), 64, 192, {"micro_batch_tokens": 2048}),
    "7M, recomputed": Case(
        Shape("small", 256, 4, 4, 2, 768, 16_000),
        64,
        192,
        {"micro_batch_tokens": 2048, "gradient_checkpointing": True},
    ),
}
"""Cases for the test suite, of a second each."""


def train_config(case: Case) -> TrainConfig:
    """The settings of a case: two micro-batches in an update."""
    rows = max(1, case.settings["micro_batch_tokens"] // (case.prompt + case.answer))
    settings = {"minibatches": 1, "prompts_per_step": 2 * rows, **case.settings}
    if settings.get("algorithm") == "grpo":
        settings["prompts_per_step"] = max(1, 2 * rows // settings["group_size"])
    values = None if settings.get("algorithm") in ("ppo", "grpo") else "v"
    return TrainConfig(model="m", problems="p", values=values, out="o", **settings)


def planned(case: Case) -> float:
    """Bytes that the plan says, without the process itself."""
    policy = workload.random_policy(case.shape, torch.device("meta"))
    shape = ModelShape(case.shape.name, policy.model.config)
    load = Load(case.prompt, case.answer, compute=None)
    peaks = trace_anew(shape, train_config(case), load)
    return max(sum(kinds.values()) for kinds in peaks.values())


def measured(case: Case) -> float:
    """Bytes that a process needs more than one that has made a small update; in a new process."""
    return _in_child(case)["measured"]


def measure_here(case: Case) -> float:
    """As `measured`, in this process, which must have done nothing before."""
    torch.set_num_threads(1)
    tiny = Shape("tiny", 32, 2, 2, 2, 64, 300)
    _update(replace(case, shape=tiny, prompt=8, answer=8))
    before = _resident()
    _update(case)
    return peak_resident_bytes() - before


def _update(case: Case) -> None:
    """Makes models and two updates: in the second the optimiser has its moments."""
    config = train_config(case)
    policy = workload.random_policy(case.shape, torch.device("cpu"))
    reference = workload.frozen_copy(policy)
    critic = workload.random_critic(policy) if config.algorithm == "ppo" else None
    if config.lora_rank:
        policy, reference = adapt(reference, config)
    learner = workload.make_learner(
        policy, reference, config.algorithm, critic, prompts_per_step=config.prompts_per_step,
        **{"minibatches": 1, **{k: v for k, v in case.settings.items() if k != "algorithm"}},
    )  # fmt: skip
    group = learner.algorithm.samples_per_prompt
    prompts = workload.make_prompts(config.prompts_per_step, case.prompt, case.shape.vocabulary)
    prompts = [prompt for prompt in prompts for _ in range(group)]
    answers = workload.judge(
        prompts, workload.make_completions(len(prompts), case.answer, case.shape.vocabulary)
    )
    for _ in range(2):
        workload.update(learner, answers)


def _resident() -> float:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _in_child(case: Case) -> dict[str, float]:
    words = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(out: Path) -> None:
    """Measures the cases that are not in the file yet, and writes each as it is done."""
    record = {"device": "CPU", "torch": torch.__version__, "rows": []}
    if out.exists():
        record = json.loads(out.read_text(encoding="utf-8"))
    done = {row["case"] for row in record["rows"]}
    for name, case in (SMALL | CASES).items():
        if name in done:
            continue
        said, found = planned(case), measured(case)
        row = {"case": name, "planned MiB": said / MIB, "measured MiB": found / MIB}
        record["rows"].append(row | {"planned / measured": said / found})
        print(f"{name:28} {said / MIB:8.1f} {found / MIB:8.1f} {said / found:.3f}", flush=True)
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="the rows")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # makes it a case's process
    given = parser.parse_args()
    if given.case:
        fields = json.loads(given.case)
        chosen = Case(**fields | {"shape": Shape(**fields["shape"])})
        print(json.dumps({"measured": measure_here(chosen)}))
    else:
        main(given.out)
