r"""Whether everything runs on one GPU, how fast, and in how much memory. Ten minutes on an H100.

    python benchmarks/gpu.py [--out FILE.json] [--parts paths,update] [--dry-run]

Models have the shapes of Qwen2.5-0.5B and 1.5B and random weights; prompts are 256 random tokens,
and every response has all of its 1024. Verification is left out. Each part is a process of its own,
and a part whose rows are in the file already is not run again. The last rows are goals, met or not.

paths       Every way of sampling and updating once, at a small size: seconds, or the exception.
generation  Tokens a second of the engines, against the bandwidth limit: a decoding step reads all
            weights but the embedding's (2 bytes each; a tied head is read) and the keys and values
            of all tokens so far, those of a prompt once for all its samples. vLLM also against a
            bare `LLM.generate`.
sync        Seconds in which vLLM takes over an update's weights.
update      Tokens a second of A*-PO's update, against the peak of matrix products in bf16. What is
            computed twice, as gradient checkpointing does, counts once.
algorithms  Seconds and peak memory of a step on 256 prompts at 1.5B: each phase is measured at its
            real batch and multiplied.
trl         The same of TRL's A2PO, where TRL is installed, from small steps.
"""

import argparse
import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gpu_vllm
import torch
import workload
from workload import QWEN_1_5B, QWEN_HALF_B, Shape, frozen_copy, random_policy, sample, timed

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import GenerateEngine
from astarpo.engines.vllm.opening import is_installed
from astarpo.models.policy import Policy
from astarpo.stages.warm_start import byte_tokenizer

Row = dict[str, Any]

PART_SECONDS = 180
RESULTS = Path(__file__).parent / "results" / "gpu.json"

# The CPU's are of no processor in particular: a dry run only tries everything out.
CARDS = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12), "CPU": (5e10, 1e11)}

FULL = {"shapes": (QWEN_HALF_B, QWEN_1_5B), "rows": 256, "prompt": 256, "response": 1024}
FULL |= {"updated": 64, "budgets": (8192, 32768)}
# With heads of 32, the smallest that vLLM has on a CPU.
TINY_SHAPES = Shape("tiny", 64, 2, 2, 1, 64, 300), Shape("less tiny", 96, 2, 3, 1, 96, 300)
TINY = {"shapes": TINY_SHAPES, "rows": 16, "prompt": 8, "response": 12}
TINY |= {"updated": 16, "budgets": (128, 512)}


class Bench:
    """Where a part runs and how large everything is; prints and keeps its rows."""

    def __init__(self, *, dry: bool) -> None:
        self.device = torch.device("cpu" if dry else "cuda")
        self.sizes: Row = TINY if dry else FULL
        self.rows: list[Row] = []

    def attempt(self, name: str, measure: Callable[[], Row]) -> Row:
        """Measures a row. Where that fails the row says so, and the others go on."""
        self.free()
        started = time.perf_counter()
        try:
            row = measure()
        except Exception as error:  # of whatever kind: it is what the row is to show
            row = {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"}
        row["took s"] = time.perf_counter() - started
        shown = {k: f"{v:,.4g}" if isinstance(v, float) else v for k, v in row.items()}
        print(f"  {name:44}", "  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
        self.rows.append({"row": name, **row})
        return row

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
        return next(rates for key, rates in CARDS.items() if key in name)

    def policy(self, index: int) -> Policy:
        """A trainable policy of one of the shapes, of random weights."""
        return random_policy(self.sizes["shapes"][index], self.device)

    def prompts(self, index: int, count: int) -> Any:
        """Prompts of random tokens."""
        return workload.make_prompts(
            count, self.sizes["prompt"], self.sizes["shapes"][index].vocabulary
        )


def paths(bench: Bench) -> None:
    """Every way of sampling and of updating once."""
    policy, prompts = frozen_copy(bench.policy(0)), bench.prompts(0, 8)
    length = min(32, bench.sizes["response"])
    requests = [Request(prompt.token_ids, i) for i, prompt in enumerate(prompts)]
    library = GenerateEngine(policy, len(prompts))
    for name, work in {
        "generate": partial(library.generate, requests, Sampling(length)),
        "hf, one a prompt": partial(sample, policy, prompts, 1, length, 64),
        "hf, eight a prompt": partial(sample, policy, prompts, 8, length, 64),
    }.items():
        bench.attempt(f"sample: {name}", lambda w=work: {"s": timed(w)})
    bench.attempt(
        "sample: vllm, rest, sync", lambda: gpu_vllm.path(bench.policy(0), prompts, length)
    )
    switches = {"gradient_checkpointing": True}, {"reference_offload": True}
    cases = [("astar_po", switch) for switch in (*switches, {"optimizer": "adamw_8bit"})]
    cases += [(name, {}) for name in ("astar_po", "grpo", "ppo", "rebel", "rloo")]
    for name, settings in cases:
        title = " ".join([f"update: {name}", *settings])
        bench.attempt(title, partial(measure_update, bench, 0, name, 8, **settings))


def generation(bench: Bench) -> None:
    """Ours at one and at eight samples a prompt, and `generate` at one."""
    bandwidth, _ = bench.card()
    rows, length = bench.sizes["rows"], bench.sizes["response"]
    for index, shape in enumerate(bench.sizes["shapes"]):
        policy = frozen_copy(bench.policy(index))
        library = GenerateEngine(policy, rows)
        for samples, name in ((1, "generate"), (1, "hf"), (8, "hf")):
            prompts = bench.prompts(index, rows // samples)
            held = len(prompts) * bench.sizes["prompt"] + rows * length / 2
            cached = held * shape.layers * 2 * shape.kv_heads * shape.head_size * 2
            least_s = length * (2 * (shape.body + shape.head) + cached) / bandwidth
            ours = partial(sample, policy, prompts, samples, length, rows)
            requests = [Request(prompt.token_ids, i) for i, prompt in enumerate(prompts)]
            theirs = partial(library.generate, requests, Sampling(length))

            def measure(work: Any, least_s: float = least_s) -> Row:
                seconds = timed(work)
                rates = {"tokens/s": rows * length / seconds, "of limit": least_s / seconds}
                return rates | {"GiB": bench.peak_gib()}

            sample(policy, prompts[:2], samples, 4, rows)  # the first of all is slow
            title = f"{shape.name}, {len(prompts)} x {samples}, {name}"
            bench.attempt(title, partial(measure, ours if name == "hf" else theirs))
        del policy, library, ours, theirs
        for samples in (1, 8):
            prompts = bench.prompts(index, rows // samples)

            def by_vllm(index: int = index, samples: int = samples, prompts: Any = prompts) -> Row:
                frozen = frozen_copy(bench.policy(index))
                row = gpu_vllm.rates(frozen, prompts, samples, length, rows)
                return {"tokens/s": rows * length / row["s"]} | row

            bench.attempt(f"{shape.name}, {len(prompts)} x {samples}, vllm", by_vllm)


def syncs(bench: Bench) -> None:
    """How long an update's weights take to vLLM."""
    context = bench.sizes["prompt"] + bench.sizes["response"]
    for index, shape in enumerate(bench.sizes["shapes"]):
        bench.attempt(shape.name, lambda i=index: gpu_vllm.sync(bench.policy(i), context))


def updates(bench: Bench) -> None:
    """A*-PO's update by size of the micro-batch, activations kept or computed again."""
    _, peak = bench.card()
    length = bench.sizes["prompt"] + bench.sizes["response"]
    tokens, answered = (bench.sizes["updated"] * n for n in (length, bench.sizes["response"]))
    for index, shape in enumerate(bench.sizes["shapes"]):
        products = shape.body * tokens + shape.head * answered
        flops = 6 * products + 6 * shape.layers * shape.hidden * tokens * length
        for budget in bench.sizes["budgets"]:
            for again in (False, True):
                settings = {"micro_batch_tokens": budget, "gradient_checkpointing": again}

                def measure(index: int, flops: float, settings: Row) -> Row:
                    count = bench.sizes["updated"]
                    row = measure_update(bench, index, "astar_po", count, **settings)
                    share = flops / row["update s"] / peak
                    return {"tokens/s": tokens / row["update s"], "of peak": share} | row

                title = f"{shape.name}, {budget} tokens{', checkpointing' * again}"
                bench.attempt(title, partial(measure, index, flops, settings))


def algorithms(bench: Bench) -> None:
    """A step of each on as many prompts, phase by phase, with the settings of the 1.5B recipes."""
    rows, count = bench.sizes["rows"], bench.sizes["updated"]
    settings = {"micro_batch_tokens": bench.sizes["budgets"][0], "gradient_checkpointing": True}

    def step(algorithm: str, group: int) -> Row:
        policy, prompts = frozen_copy(bench.policy(1)), bench.prompts(1, rows // group)
        length = bench.sizes["response"]
        if is_installed():
            generate_s = group * gpu_vllm.rates(policy, prompts, group, length, rows)["s"]
        else:
            generate_s = group * timed(partial(sample, policy, prompts, group, length, rows))
        del policy
        own = {"group_size": group} if algorithm == "grpo" else {}
        row = measure_update(bench, 1, algorithm, count, **own, **settings)
        update_s = (row["reference s"] + row["update s"]) * rows * group / count
        by = "vllm" if is_installed() else "hf"
        return {"step s": generate_s + update_s, "generate s": generate_s, "engine": by} | row

    for name, algorithm, group in (
        ("A*-PO", "astar_po", 1),
        ("PPO", "ppo", 1),
        ("REBEL", "rebel", 2),
        ("GRPO(8)", "grpo", 8),
    ):
        bench.attempt(f"{rows} prompts, {name}", partial(step, algorithm, group))


def measure_update(bench: Bench, index: int, algorithm: str, count: int, **settings: Any) -> Row:
    """Seconds of reference and update of so many sequences after one to warm up, and the peak."""
    policy, vocabulary = bench.policy(index), bench.sizes["shapes"][index].vocabulary
    critic = workload.random_critic(policy) if algorithm == "ppo" else None
    settings |= {"minibatches": 1}
    learner = workload.make_learner(policy, frozen_copy(policy), algorithm, critic, **settings)
    group = learner.algorithm.samples_per_prompt
    prompts = [p for p in bench.prompts(index, count // group) for _ in range(group)]
    answers = workload.judge(
        prompts, workload.make_completions(len(prompts), bench.sizes["response"], vocabulary)
    )
    workload.update(learner, answers)
    bench.free()
    seconds = workload.update(learner, answers)
    return {f"{phase} s": s for phase, s in seconds.items()} | {"GiB": bench.peak_gib()}


def trl(bench: Bench) -> None:
    """The last of some small steps of TRL's A2PO, times what a whole step takes of it."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    batch, rows = 8, bench.sizes["rows"]

    def step() -> Row:
        with tempfile.TemporaryDirectory() as folder:
            *_, before, last = a2po_steps(bench, batch, folder)
        return {"step s": (last - before) * rows / batch, "GiB": bench.peak_gib()}

    bench.attempt(f"{rows} prompts, TRL's A2PO", step)


def a2po_steps(bench: Bench, batch: int, folder: str) -> list[float]:
    """When the answers of each of three steps were judged: from one to the next is a whole step."""
    from datasets import Dataset
    from trl.experimental.a2po import A2POConfig, A2POTrainer

    judged: list[float] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        judged.append(time.perf_counter())
        return [float(i % 2) for i in range(len(completions))]

    on_cuda, width = bench.device.type == "cuda", bench.sizes["prompt"]
    # A byte is a token; "#" in front keeps the prompts apart, which A2PO knows by their text.
    texts = [f"{i:#>{width}}" for i in range(3 * batch)]
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    settings = {"max_prompt_length": width, "max_completion_length": bench.sizes["response"]}
    settings |= {"max_steps": 3, "report_to": [], "save_strategy": "no", "disable_tqdm": True}
    settings |= {"bf16": on_cuda, "use_cpu": not on_cuda, "gradient_checkpointing": True}
    model = bench.policy(1).model
    model.config._name_or_path = folder
    trainer = A2POTrainer(
        model=model,
        reward_funcs=reward,
        args=A2POConfig(output_dir=folder, per_device_train_batch_size=batch, **settings),
        train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=tokenizer,
    )
    trainer._optimal_values = dict.fromkeys(texts, 0.5)  # without its stage 1
    trainer.train()
    return judged


PARTS = {"paths": paths, "generation": generation, "sync": syncs, "update": updates}
PARTS |= {"algorithms": algorithms, "trl": trl}


def main(parts: list[str], out: Path, *, dry: bool) -> None:
    """Runs the parts that are not in the file yet, each in a process of its own."""
    if not dry and not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here; --dry-run tries everything on the CPU, much smaller")
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    sizes: Row = TINY if dry else FULL
    for name in (name for name in parts if name not in record):
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.json"
            command = [sys.executable, __file__, "--parts", name, "--rows", str(rows)]
            try:
                subprocess.run(command + ["--dry-run"] * dry, timeout=PART_SECONDS, check=True)
            except subprocess.SubprocessError as error:
                print(f"  {error}", flush=True)
                continue
            record |= {"torch": torch.__version__, name: json.loads(rows.read_text())}
        record["goals"] = gpu_vllm.goals(record, sizes["shapes"][1].name, sizes["rows"])
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for row in record.get("goals", []):
        print(
            f"  goal: {row['goal']}: {row['measured']}, wanted {row['wanted']}, met: {row['met']}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in this order")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the rows")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # makes it a part's process
    given = parser.parse_args()
    if given.rows:
        # Made-up responses have no log-probs of an engine's, of which training would warn.
        logging.getLogger("astarpo").setLevel(logging.ERROR)
        bench = Bench(dry=given.dry_run)
        PARTS[given.parts](bench)
        given.rows.write_text(json.dumps(bench.rows), encoding="utf-8")
    else:
        main(given.parts.split(","), given.out, dry=given.dry_run)
