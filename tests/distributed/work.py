"""All that ranks share, in one go, by one process or by the ranks that torchrun starts.

    python -m tests.distributed.work FOLDER NAME

Reads the policy and problems in FOLDER and writes FOLDER/NAME.
"""

import sys
from pathlib import Path
from typing import Any

from astarpo.config import EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.runtime.distributed import open_ranks
from astarpo.stages.estimate import estimate
from astarpo.stages.evaluate import evaluate
from astarpo.stages.train import train

RUNS: dict[str, dict[str, Any]] = {
    "astar_po": {"algorithm": "astar_po"},
    "stage1": {"algorithm": "astar_po", "first_rollouts": "stage1"},
    "grpo": {"algorithm": "grpo", "group_size": 2},
    "rloo": {"algorithm": "rloo", "group_size": 3},
    "rebel": {"algorithm": "rebel"},
    "ppo": {"algorithm": "ppo", "critic_lr": 3e-5},
    "spo": {"algorithm": "spo"},
}
"""Groups, pairs, a critic, whitening, running values."""


def work(folder: Path, name: str) -> None:
    """Estimates, trains by every algorithm and evaluates, two steps each."""
    # Its answers are right and wrong: with rewards all alike, a gradient is nothing but rounding,
    # of which AdamW makes steps of full length.
    common = {"model": "shipped:beliefs", "device": "cpu"}
    prompts = {"problems": folder / "sums.parquet", "max_prompt_tokens": 64, "max_new_tokens": 40}
    out = folder / name
    tables = {
        "values": {"samples": 3, "shard_problems": 5},
        "one-shard": {"samples": 1, "shard_problems": 24},  # nothing to do for other ranks
        "rounds": {"budget_samples": 60, "estimator": "shrunk", "shard_problems": 4},
    }
    for table, settings in tables.items():
        estimate(
            EstimateConfig(**common, **prompts, **settings, out=out / table, allow_truncated=True)
        )
    with open_ranks():
        for run, settings in RUNS.items():
            has_table = settings["algorithm"] in ("astar_po", "spo")
            given = {"problems": folder / "sums.parquet", "values": out / "values"}
            train(
                TrainConfig(
                    **common,
                    **settings,
                    **(given if has_table else prompts),
                    out=out / run,
                    eval_problems=folder / "held-out.parquet",
                    steps=2,
                    prompts_per_step=6,
                    minibatches=1,
                    micro_batch_tokens=256,
                    eval_every=2,
                    eval_samples=1,
                    lr=3e-5,
                    health="off",
                )
            )
        scores = {"samples": 2, "reference": "shipped:beliefs"}
        trained = {"device": "cpu", "model": str(out / "astar_po" / "model")}
        evaluate(EvaluateConfig(**trained, **prompts, **scores, out=out / "scores.json"))


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2])
