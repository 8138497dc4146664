"""How the seconds of stage 1 and of a step grow with the size of everything.

    python benchmarks/scaling.py [REPEATS]
    python benchmarks/scaling.py --ranks 2      a step on 1 and on 2 processes of one thread each

From the demo's policy with untrained ones of its kind beside it, on random prompts of 40 tokens;
every response has its full length (see `workload.py`). One thread, by the clock: five minutes where
nothing else runs. All sizes take turns; seconds are medians. Power: 1 is linear, 2 quadratic.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from workload import Load, Series, Stages, endless, exponent, growth, measure_series

from astarpo.config.base import find_shipped
from astarpo.models.policy import load_policy
from astarpo.stages.warm_start import build_policy

PROMPT = 40
BASE = Load("128", prompts=128, samples=4, length=64)


def main(repeats: int) -> None:
    """Prints a line for each series and stage."""
    torch.set_num_threads(1)
    shipped = load_policy(find_shipped("shipped:sums"), torch.device("cpu"), trainable=True)
    policies = {BASE.size: endless(shipped)}
    for hidden in (256, 512):
        policies[str(hidden)] = endless(build_policy(hidden, 2, 4, seed=0))
    stages = Stages(policies, PROMPT, max_sequences=512, minibatches=1)
    series = [
        Series("prompts", {n: replace(BASE, prompts=n) for n in (64, 128, 256, 512)}),
        Series("N", {n: replace(BASE, samples=n) for n in (1, 2, 4, 8)}),
        Series("tokens of a response", {n: replace(BASE, length=n) for n in (32, 64, 128, 256)}),
        Series("weights", {stages.parameters[s]: replace(BASE, size=s) for s in policies}),
    ]
    medians_of = measure_series(stages, series, repeats)
    for each in series:
        sizes = list(each.loads)
        print(f"{each.name:24}{''.join(f'{size:>10,}' for size in sizes)}{'power':>10}")
        for stage, medians in medians_of[each.name].items():
            power = exponent(sizes, medians)
            seconds = "".join(f"{median:>10.3f}" for median in medians)
            print(f"  {stage:22}{seconds}{power:>10.2f}  {growth(power)}", flush=True)


def compare_ranks(most: int) -> None:
    """Prints what a step takes on each number of ranks, and what their communication costs."""
    worker, found = Path(__file__).with_name("ranks.py"), {}
    with tempfile.TemporaryDirectory() as folder:
        for size in range(1, most + 1):
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(size), str(worker), folder]
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
            found[size] = json.loads(done.stdout.splitlines()[-1])
    print(f"{'ranks':24}{''.join(f'{size:>10}' for size in found)}")
    for unit in ("seconds", "milliseconds"):
        for name in found[1][unit]:
            values = "".join(f"{each[unit][name]:>10.3f}" for each in found.values())
            print(f"{name + ' (ms)' * (unit == 'milliseconds'):24}{values}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ranks"]:
        compare_ranks(int(sys.argv[2]))
        sys.exit()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
