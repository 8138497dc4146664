r"""Whether everything runs on one GPU, how fast, and in how much memory. Ten minutes on an H100.

    python benchmarks/gpu.py [--out FILE.json] [--parts paths,update] [--dry-run]

Models have the shapes of Qwen2.5-0.5B and 1.5B and random weights; prompts are 256 random tokens,
and every response has all of its 1024. Verification is left out. Rows of vLLM, TRL or bitsandbytes
are skipped where it is not installed. The last rows are goals, met or not.

Each part is a process of its own with three minutes at the most, and a part whose rows are in the
file already is not run again. After ten minutes none is started: the same command goes on. What a
part that was cut off had measured stands in the file as `PART, cut off`. A dry run of vLLM
is faster by minutes with TORCHDYNAMO_DISABLE=1, which leaves the compiled update out.

paths       Every way of sampling and updating once, at a small size: seconds, or the exception.
generation  Tokens a second of the engines, against the bandwidth limit: a decoding step reads all
            weights but the embedding's (2 bytes each; a tied head is read) and the keys and values
            of all tokens so far, those of a prompt once for all its samples. vLLM also against a
            bare `LLM.generate`.
sync        Seconds in which vLLM takes over an update's weights.
update      Tokens a second of A*-PO's update, against the peak of matrix products in bf16. What is
            computed twice, as gradient checkpointing does, counts once. Once with layers that
            `torch.compile` makes.
algorithms  Seconds and peak memory of a step on 256 prompts at 1.5B: each phase is measured at its
            real batch and multiplied.
trl         The same of TRL's A2PO, where TRL is installed, from small steps.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import gpu_vllm
import torch
from gpu_bench import FULL, TINY, Bench, Row, measure_update
from gpu_goals import goals
from gpu_trl import trl
from workload import frozen_copy, sample, timed

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import GenerateEngine
from astarpo.engines.vllm.opening import is_installed

PART_SECONDS, ALL_SECONDS = 180, 600
RESULTS = Path(__file__).parent / "results" / "gpu.json"


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
        "sample: vllm, rest, sync",
        lambda: gpu_vllm.path(bench.policy(0), prompts, length),
        needs="vllm",
    )
    for name in ("astar_po", "grpo", "ppo", "rebel", "rloo"):
        bench.attempt(f"update: {name}", partial(measure_update, bench, 0, name, 8))
    for setting, value, needs in (
        ("gradient_checkpointing", True, ""),
        ("reference_offload", True, ""),
        ("optimizer", "adamw_8bit", "bitsandbytes"),
        ("compiled", True, ""),
    ):
        settings: Row = {setting: value}
        work = partial(measure_update, bench, 0, "astar_po", 8, **settings)
        bench.attempt(f"update: astar_po, {setting} {value}", work, needs=needs)


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

            bench.attempt(f"{shape.name}, {len(prompts)} x {samples}, vllm", by_vllm, needs="vllm")


def syncs(bench: Bench) -> None:
    """How long an update's weights take to vLLM."""
    context = bench.sizes["prompt"] + bench.sizes["response"]
    for index, shape in enumerate(bench.sizes["shapes"]):
        work = partial(lambda i: gpu_vllm.sync(bench.policy(i), context), index)
        bench.attempt(shape.name, work, needs="vllm")


def updates(bench: Bench) -> None:
    """A*-PO's update by size of the micro-batch, activations kept or computed again."""
    _, peak = bench.card()
    length = bench.sizes["prompt"] + bench.sizes["response"]
    tokens, answered = (bench.sizes["updated"] * n for n in (length, bench.sizes["response"]))
    for index, shape in enumerate(bench.sizes["shapes"]):
        products = shape.body * tokens + shape.head * answered
        flops = 6 * products + 6 * shape.layers * shape.hidden * tokens * length
        small, large = bench.sizes["budgets"]
        ways = [(budget, way) for budget in (small, large) for way in ("", "checkpointing")]
        if index:  # Compiling takes a minute: of the larger alone.
            ways.append((small, "compiled"))
        for budget, way in ways:
            settings = {"micro_batch_tokens": budget, "compiled": way == "compiled"}
            settings["gradient_checkpointing"] = way == "checkpointing"

            def measure(index: int, flops: float, settings: Row) -> Row:
                row = measure_update(bench, index, "astar_po", bench.sizes["updated"], **settings)
                share = flops / row["update s"] / peak
                return {"tokens/s": tokens / row["update s"], "of peak": share} | row

            title = ", ".join(filter(None, [shape.name, f"{budget} tokens", way]))
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


PARTS = {"paths": paths, "generation": generation, "sync": syncs, "update": updates}
PARTS |= {"algorithms": algorithms, "trl": trl}


def run_part(name: str, seconds: float, *, dry: bool) -> tuple[list[Row], bool]:
    """The rows of a part, run in a process of its own, and whether those are all."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [sys.executable, __file__, "--parts", name, "--rows", str(rows)]
        try:
            subprocess.run(command + ["--dry-run"] * dry, timeout=seconds, check=True)
            ended = True
        except subprocess.SubprocessError as error:
            print(f"  {name} was cut off: {error}", flush=True)
            ended = False
        found = json.loads(rows.read_text(encoding="utf-8")) if rows.exists() else []
    return found, ended


def main(parts: list[str], out: Path, *, dry: bool) -> None:
    """Runs the parts that are not in the file yet."""
    if not dry and not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here; --dry-run tries everything on the CPU, much smaller")
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    sizes = TINY if dry else FULL
    deadline = time.monotonic() + ALL_SECONDS
    for name in (name for name in parts if name not in record):
        left = deadline - time.monotonic()
        if left <= 0:
            print(f"{name}: out of time; the same command goes on", flush=True)
            continue
        print(name, flush=True)
        found, ended = run_part(name, min(PART_SECONDS, left), dry=dry)
        record.pop(f"{name}, cut off", None)
        record |= {name if ended else f"{name}, cut off": found}
        record["torch"] = torch.__version__
        record["device"] = "CPU" if dry else torch.cuda.get_device_name()
        record["goals"] = goals(record, sizes["shapes"][1].name, sizes["rows"])
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
        PARTS[given.parts](Bench(given.rows, dry=given.dry_run))
    else:
        main(given.parts.split(","), given.out, dry=given.dry_run)
