"""What stage 1 costs beside sampling and judging: shards, checks, V*, by the number of samples.

    python benchmarks/value_table.py --samples 10000 100000 800000

A real `astarpo estimate` runs on the shipped policy, but its answers come ready-made, of 64 tokens
each. Seconds are of this process's CPU, so that other load does not count. `fill` makes the table,
`again` is a second call that finds every sample there.
"""

import argparse
import logging
import tempfile
import time
from importlib import import_module
from pathlib import Path
from unittest import mock

from astarpo.config import EstimateConfig
from astarpo.tasks.problem_set import write_problems
from astarpo.types import Answer, Completion, Problem, Verdict

SAMPLES_EACH = 8

# The package has a function of the same name.
stage1 = import_module("astarpo.stages.estimate")
sampling = import_module("astarpo.stages.sampling")


def ready_made(policy, engine, grader, prompts, seeds, sampling, clock, advance):
    """Answers in place of `roll_out`, right or wrong by their seeds."""
    with clock.phase("generate"):
        completion = Completion(tuple(range(64)), (0.0,) * 64, "stop")
    return [
        Answer(prompt, completion, "x" * 200, Verdict(float(seed % 3 == 0), "1", "ok"))
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]


def measure(folder: Path, num_samples: int) -> None:
    """Prints the CPU seconds of filling a table and of finding it full."""
    problems = [
        Problem(str(i), "gsm8k", ({"role": "user", "content": f"{i} + 1 ="},), "1")
        for i in range(num_samples // SAMPLES_EACH)
    ]
    write_problems(folder / "p.parquet", problems)
    config = EstimateConfig(
        model="shipped:sums", problems=folder / "p.parquet", out=folder / "v",
        samples=SAMPLES_EACH, device="cpu",
    )  # fmt: skip
    seconds = []
    for _ in range(2):
        started = time.process_time()
        stage1.estimate(config)
        seconds.append(time.process_time() - started)
    print(f"{num_samples:>9,} {seconds[0]:>10.1f} {seconds[1]:>10.1f}", flush=True)


def main() -> None:
    """Measures each size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000, 800_000])
    logging.getLogger("astarpo").setLevel(logging.ERROR)
    print(f"{'samples':>9} {'fill (s)':>10} {'again (s)':>10}")
    for num_samples in parser.parse_args().samples:
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(sampling, "roll_out", ready_made),
        ):
            measure(Path(folder), num_samples)


if __name__ == "__main__":
    main()
