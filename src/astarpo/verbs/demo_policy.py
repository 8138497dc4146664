"""Makes the small policy that the demo starts from: `python -m astarpo.verbs.demo_policy FOLDER`.

It learns to write out sums, first from right solutions, then from solutions some of whose steps
are wrong. So it can do the task but gets about half of its answers wrong, like a pretrained model
on a benchmark. Only problems of the training split are used.
"""

import argparse
import logging
import random
import re
from pathlib import Path

from astarpo.models.policy import save_model
from astarpo.runtime.files import atomic_directory
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.seeding import derive_seed
from astarpo.stages.warm_start import build_policy, fit, make_example
from astarpo.tasks.arithmetic import Arithmetic, worked_solution
from astarpo.types import UserError

SLIP_RATE = 0.17
SLIPS = (-10, -2, -1, 1, 2, 10)
SLIPPED_COPIES = 4
SEED = 0


def make_demo_policy(out: Path, clean_steps: int = 800, slip_steps: int = 400) -> None:
    """Trains the policy from scratch, on right solutions and then on wrong ones, and saves it."""
    policy = build_policy(hidden_size=128, layers=2, heads=4, seed=SEED)
    rng = random.Random(derive_seed(SEED, "slips"))
    task = Arithmetic()
    problems = list(task.problems(source=None, split="train", size=None, seed=SEED + 1))

    def slip() -> int:
        return rng.choice(SLIPS) if rng.random() < SLIP_RATE else 0

    def with_slips(label: str) -> str:
        return worked_solution([int(term) for term in re.findall(r"[+-]?\d+", label)], slip)

    clean = [make_example(policy.vocabulary, p, p.extra["solution"]) for p in problems]
    slipped = [
        make_example(policy.vocabulary, p, with_slips(p.id.rpartition("/")[2]))
        for p in problems
        for _ in range(SLIPPED_COPIES)
    ]
    fit(policy, clean, steps=clean_steps, batch_size=64, lr=3e-3, seed=SEED)
    fit(policy, slipped, steps=slip_steps, batch_size=64, lr=1e-3, seed=SEED + 1)
    with atomic_directory(out) as path:
        save_model(path, policy)


def main() -> None:
    """Makes the policy in the folder that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m astarpo.verbs.demo_policy",
        description="Makes the policy of the demo, in minutes.",
    )
    parser.add_argument("out", type=Path, metavar="FOLDER", help="folder for the policy")
    out = parser.parse_args().out
    try:
        check_folder(out)
    except UserError as error:
        parser.error(str(error))
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    make_demo_policy(out)


if __name__ == "__main__":
    main()
