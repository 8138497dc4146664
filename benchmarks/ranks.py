"""What one rank does for `scaling.py --ranks`: steps of training, and each kind of communication.

Started by torchrun, in any number of processes of one thread. The first rank prints one line of
JSON: seconds of a step by phase, and milliseconds of what ranks exchange.
"""

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from astarpo.config import DataConfig, TrainConfig
from astarpo.runtime.distributed import open_ranks
from astarpo.stages.data import gather_problems
from astarpo.stages.train import train
from astarpo.tasks.problem_set import write_problems
from astarpo.types import Completion

STEPS, PROMPTS, ANSWERS, NUMBERS, TIMES = 4, 32, 4, 2**20, 20


def milliseconds(work: Callable[[], object]) -> float:
    """The median time of a call."""
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return 1e3 * statistics.median(taken)


def main(folder: Path) -> None:
    """Trains on sums by RLOO, whose first step warms up and is left out."""
    logging.getLogger("astarpo").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with open_ranks("cpu") as where:
        out = folder / f"ranks-{where.size}"
        problems = folder / "problems.parquet"
        made = gather_problems(DataConfig(task="arithmetic", limit=256, out=problems))
        where.first(lambda: write_problems(problems, made))
        train(
            TrainConfig(
                model="shipped:beliefs", problems=problems, out=out, algorithm="rloo",
                group_size=ANSWERS, steps=STEPS, prompts_per_step=PROMPTS, max_new_tokens=64,
                micro_batch_tokens=2048, device="cpu", health="off",
            )
        )  # fmt: skip
        token_ids = tuple(range(64))
        answers = [Completion(token_ids, (0.5,) * 64, "stop")] * (PROMPTS * ANSWERS)
        mine = [answers[i] for i in where.share([64] * len(answers))]
        tensor = torch.zeros(NUMBERS)
        costs = {
            "meet": milliseconds(where.barrier),
            "gather answers": milliseconds(lambda: where.gather(mine)),
            "sum 2^20 numbers": milliseconds(lambda: where.sum(tensor)),
        }
        if where.is_first:
            lines = (out / "metrics.jsonl").read_text().splitlines()[1:]
            rows = [json.loads(line) for line in lines]
            names = ["seconds", *(f"seconds_{phase}" for phase in ("generate", "update"))]
            steps = {name: statistics.median(row[name] for row in rows) for name in names}
            print(json.dumps({"seconds": steps, "milliseconds": costs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
