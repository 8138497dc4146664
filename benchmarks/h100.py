r"""How fast and in how much memory everything runs on one GPU: written for an H100, 10 minutes.

    python benchmarks/h100.py [--out FILE.json] [--parts generation,update] [--dry-run]

Models have the shapes of Qwen2.5-0.5B and 1.5B and random weights; prompts are 256 random tokens,
and every response has all of its 1024 but where it says "mean". Verification is left out. Each part
is a process of its own with a limit of its own, and prints its rows as it has them.

generation  our engine, beside plain `generate` in bf16 and beside what memory allows: a step of
            decoding reads all weights but the embedding's (2 bytes each; a tied head is read) and
            the keys and values of all tokens so far, those of a prompt once for all its samples,

                bytes = 2 (body + head) + held * layers * 2 * kv_heads * head_size * 2
                held  = prompts * prompt tokens + rows * response tokens / 2, on average
                limit = rows * bandwidth / bytes        tokens a second

            "of limit" is by the bandwidth that the maker names, "of copy's" by that of a copy here.
            `generate` is given some seconds and judged by what it did in them. "mean": lengths are
            geometric, by a logit of the stop id.
update      A*-PO's update and the reference's log-probs, beside the peak of matrix products:

                flops = 6 (body * tokens + head * response tokens) + 3 attention
                attention = 2 * layers * hidden * tokens * tokens a sequence

            (for the reference 2 and 1 in place of 6 and 3). What is computed twice, as gradient
            checkpointing does, counts once.
algorithms  seconds of a step and peak of memory on equal prompts at 1.5B. The phases of a step are
            each measured at its real batch and multiplied: sampling is of 256 rows at once,
            log-probs and gradients of micro-batches, so both grow with the number of sequences.
trl         the same of TRL's trainers, where it is installed; theirs too is composed.
scaling     seconds of stage 1 and of a step against prompts, N, length and model.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from bench import FULL, TINY, Bench
from h100_generation import generation
from h100_trl import trl
from h100_update import algorithms, updates
from workload import Series, Stages, exponent, growth, measure_series, random_policy

TOTAL_SECONDS = 570


@dataclass(frozen=True)
class Part:
    """What is measured, for how long at most while others wait, and what it is held against."""

    run: Callable[[Bench], None]
    seconds: float
    goal: str


def scaling(bench: Bench) -> None:
    """Every series by itself: what is not reached in time is left out."""
    sizes, base = bench.sizes, bench.sizes.scaled
    shapes = {"small": sizes.small, "large": sizes.large}
    stages = Stages(
        {name: random_policy(shape, bench.device) for name, shape in shapes.items()},
        sizes.prompt,
        max_sequences=sizes.prompts,
        micro_batch_tokens=sizes.budgets[0],
        gradient_checkpointing=True,
    )
    for series in (
        Series(
            "length", {base.length * k: replace(base, length=base.length * k) for k in (1, 2, 4)}
        ),
        Series(
            "prompts",
            {base.prompts * k: replace(base, prompts=base.prompts * k) for k in (1, 2, 4)},
        ),
        Series("N", {base.samples * k: replace(base, samples=base.samples * k) for k in (1, 2, 4)}),
        Series("weights", {stages.parameters[name]: replace(base, size=name) for name in shapes}),
    ):
        for stage, seconds in measure_series(stages, [series], 1)[series.name].items():
            power = exponent(list(series.loads), seconds)
            points = {f"{size:,.0f}": s for size, s in zip(series.loads, seconds, strict=True)}
            bench.row(
                f"{stage} against {series.name}",
                {**points, "power": power, "growth": growth(power)},
            )


PARTS = {
    "generation": Part(generation, 180, "4x generate, 50% of the limit"),
    "update": Part(updates, 100, "45% of the peak"),
    "algorithms": Part(algorithms, 160, "twice as fast as GRPO(8), 30% less memory than PPO"),
    "trl": Part(trl, 150, "half of the memory of TRL's A2PO"),
    "scaling": Part(scaling, 100, "near linear at most"),
}


def run_part(name: str, rows: Path, *, dry: bool) -> None:
    """Runs one part in this process."""
    device = torch.device("cpu" if dry else "cuda")
    PARTS[name].run(Bench(name, TINY if dry else FULL, device, rows))


def main(parts: list[str], out: Path | None, *, dry: bool) -> None:
    """Runs parts in processes of their own, each until its limit or that of all."""
    if not dry and not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here; --dry-run tries everything on the CPU, much smaller")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.touch()
        for name in parts:
            print(f"{name}; goal: {PARTS[name].goal}", flush=True)
            left = max(1.0, TOTAL_SECONDS - (time.perf_counter() - started))
            limit = left if name == parts[-1] else min(PARTS[name].seconds, left)
            command = [sys.executable, __file__, "--parts", name, "--rows", str(rows)]
            try:
                subprocess.run(command + ["--dry-run"] * dry, timeout=limit, check=True)
            except subprocess.TimeoutExpired:
                print(f"  stopped at its limit of {limit:.0f} s", flush=True)
            except subprocess.CalledProcessError as error:
                print(f"  ended with status {error.returncode}", flush=True)
            if out:
                record = {
                    "torch": torch.__version__,
                    "seconds": time.perf_counter() - started,
                    "sizes": asdict(TINY if dry else FULL),
                    "rows": [json.loads(line) for line in rows.read_text().splitlines()],
                }
                out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in this order")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # makes it a part's process
    given = parser.parse_args()
    if given.rows:
        run_part(given.parts, given.rows, dry=given.dry_run)
    else:
        main(given.parts.split(","), given.out, dry=given.dry_run)
