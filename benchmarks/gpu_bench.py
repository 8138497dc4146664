"""What the parts of `gpu.py` share: sizes, the card, rows, and the measure of an update."""

import gc
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import workload
from workload import QWEN_1_5B, QWEN_HALF_B, Shape, frozen_copy, random_policy

from astarpo.models.policy import Policy

Row = dict[str, Any]

# The CPU's are of no processor in particular: a dry run only tries everything out.
CARDS = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12), "CPU": (5e10, 1e11)}

FULL: Row = {"shapes": (QWEN_HALF_B, QWEN_1_5B), "rows": 256, "prompt": 256, "response": 1024}
FULL |= {"updated": 64, "budgets": (8192, 32768)}
# With heads of 32, the smallest that vLLM has on a CPU.
TINY_SHAPES = Shape("tiny", 64, 2, 2, 1, 64, 300), Shape("less tiny", 96, 2, 3, 1, 96, 300)
TINY: Row = {"shapes": TINY_SHAPES, "rows": 16, "prompt": 8, "response": 12}
TINY |= {"updated": 16, "budgets": (128, 512)}


class Bench:
    """Where a part runs and how large everything is; prints and keeps its rows."""

    def __init__(self, out: Path, *, dry: bool) -> None:
        """Keeps the rows in a file, which holds all there are should the part be cut off."""
        self.device = torch.device("cpu" if dry else "cuda")
        self.sizes = TINY if dry else FULL
        self._out = out
        self._rows: list[Row] = []

    def attempt(self, name: str, measure: Callable[[], Row], *, needs: str = "") -> None:
        """Measures a row. Where that fails the row says so, and the others go on.

        Args:
            name: Of the row.
            measure: Gives what it found.
            needs: A library, without which the row is skipped.
        """
        self.free()
        started = time.perf_counter()
        if needs and not importlib.util.find_spec(needs):
            row = {"skipped": f"{needs} is not installed"}
        else:
            try:
                row = measure()
            except Exception as error:  # of whatever kind: it is what the row is to show
                first, *_ = str(error).strip().splitlines() or [""]
                row = {"failed": f"{type(error).__name__}: {first}"}
            row["took s"] = time.perf_counter() - started
        shown = {k: f"{v:,.4g}" if isinstance(v, float) else v for k, v in row.items()}
        print(f"  {name:44}", "  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
        self._rows.append({"row": name, **row})
        self._out.write_text(json.dumps(self._rows), encoding="utf-8")

    def free(self) -> None:
        """Gives unused memory back and forgets the peak so far."""
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without a GPU
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float:
        """Most memory in use since `free`; 0 on the CPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0

    def card(self) -> tuple[float, float]:
        """Bytes and flops (bf16, dense) a second that the maker names."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        for key, rates in CARDS.items():
            if key in name:
                return rates
        raise RuntimeError(f"what an {name} could do at best is not known here; add it to CARDS")

    def policy(self, index: int) -> Policy:
        """A trainable policy of one of the shapes, of random weights."""
        return random_policy(self.sizes["shapes"][index], self.device)

    def prompts(self, index: int, count: int) -> Any:
        """Prompts of random tokens."""
        return workload.make_prompts(
            count, self.sizes["prompt"], self.sizes["shapes"][index].vocabulary
        )


def measure_update(
    bench: Bench, index: int, algorithm: str, count: int, *, compiled: bool = False, **settings: Any
) -> Row:
    """Seconds of reference and update of so many sequences after one to warm up, and the peak.

    Args:
        bench: Where.
        index: Of the shape.
        algorithm: Its name.
        count: Sequences.
        compiled: Whether `torch.compile` makes the policy's layers.
        settings: Of the learner.
    """
    policy, vocabulary = bench.policy(index), bench.sizes["shapes"][index].vocabulary
    reference = frozen_copy(policy)
    critic = workload.random_critic(policy) if algorithm == "ppo" else None
    settings |= {"minibatches": 1}
    learner = workload.make_learner(policy, reference, algorithm, critic, **settings)
    group = learner.algorithm.samples_per_prompt
    prompts = [p for p in bench.prompts(index, count // group) for _ in range(group)]
    answers = workload.judge(
        prompts, workload.make_completions(len(prompts), bench.sizes["response"], vocabulary)
    )
    workload.update(learner, answers)
    if compiled:
        # A dry run only asks whether the layers can be traced: kernels for a CPU take minutes.
        backend = "inductor" if bench.device.type == "cuda" else "aot_eager"
        for layer in policy.model.get_decoder().layers:
            layer.compile(dynamic=True, backend=backend)
        workload.update(learner, answers)
    bench.free()
    seconds = workload.update(learner, answers)
    return {f"{phase} s": s for phase, s in seconds.items()} | {"GiB": bench.peak_gib()}
