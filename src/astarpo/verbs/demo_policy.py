"""Makes the small policies that are shipped: `python -m astarpo.verbs.demo_policy NAME FOLDER`.

Each learns to write out sums, first from right solutions, then from solutions some of whose steps
are wrong. So it can do the task but gets many answers wrong, like a pretrained model on a
benchmark. They differ in which steps are wrong:

- `sums` slips anywhere, now and then. Its greedy answers are nearly always right, and what there is
  to gain is reliability.
- `beliefs` is sure of some steps, unsure of others, and takes a wrong result for right in one of
  five. Its greedy answers are wrong about as often as its samples: what there is to gain is the
  answer itself.
- `mixed` is sure of most steps and nearly always wrong in some: a third of the sums is easy for it,
  and a third nearly hopeless.

Only problems of the training split are used.
"""

import argparse
import logging
import random
import re
from bisect import bisect
from collections.abc import Callable
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from astarpo.models.policy import Policy, save_model
from astarpo.runtime.files import atomic_directory
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.seeding import derive_seed
from astarpo.stages.warm_start import build_policy, fit, make_example
from astarpo.tasks.arithmetic import Arithmetic, worked_solution
from astarpo.types import UserError

SLIPS = (-10, -2, -1, 1, 2, 10)
SEED = 0


class Steps(NamedTuple):
    """A share of all steps, and how often they are written out right."""

    share: float
    right: float


class Recipe(NamedTuple):
    """How a policy is made.

    Attributes:
        steps: Where it slips; one entry for slips anywhere.
        copies: Solutions with slips of each problem.
        clean_steps: Updates on right solutions.
        slip_steps: Updates on those with slips.
        slip_lr: Peak learning rate of the latter.
    """

    steps: tuple[Steps, ...]
    copies: int
    clean_steps: int
    slip_steps: int
    slip_lr: float


POLICIES = {
    "sums": Recipe((Steps(1, 0.83),), 4, 800, 400, 1e-3),
    "beliefs": Recipe((Steps(0.55, 0.98), Steps(0.25, 0.6), Steps(0.2, 0.3)), 8, 600, 600, 2e-3),
    "mixed": Recipe((Steps(0.69, 0.985), Steps(0.185, 0.5), Steps(0.125, 0.03)), 8, 600, 600, 2e-3),
}


def make_policy(recipe: Recipe) -> Policy:
    """Trains a policy from scratch on sums, on right solutions and then on wrong ones."""
    policy = build_policy(hidden_size=128, layers=2, heads=4, seed=SEED)
    rng = random.Random(derive_seed(SEED, "slips"))
    problems = list(Arithmetic().problems(source=None, split="train", size=None, seed=SEED + 1))
    slip = _slip_anywhere(recipe, rng) if len(recipe.steps) == 1 else _slip_by_step(recipe, rng)

    def with_slips(label: str) -> str:
        return worked_solution([int(term) for term in re.findall(r"[+-]?\d+", label)], slip)

    clean = [make_example(policy.vocabulary, p, p.extra["solution"]) for p in problems]
    slipped = [
        make_example(policy.vocabulary, p, with_slips(p.id.rpartition("/")[2]))
        for p in problems
        for _ in range(recipe.copies)
    ]
    fit(policy, clean, steps=recipe.clean_steps, batch_size=64, lr=3e-3, seed=SEED)
    fit(policy, slipped, steps=recipe.slip_steps, batch_size=64, lr=recipe.slip_lr, seed=SEED + 1)
    return policy


def _slip_anywhere(recipe: Recipe, rng: random.Random) -> Callable[[int, int], int]:
    slip_rate = 1 - recipe.steps[0].right
    return lambda total, term: rng.choice(SLIPS) if rng.random() < slip_rate else 0


def _slip_by_step(recipe: Recipe, rng: random.Random) -> Callable[[int, int], int]:
    """Slips whose rate and kind go by the step, always the same for `7+5`, say."""
    bounds = list(accumulate(share for share, _ in recipe.steps[:-1]))

    def slip(total: int, term: int) -> int:
        digest = int.from_bytes(blake2b(f"{total}{term:+d}".encode(), digest_size=8).digest())
        right = recipe.steps[bisect(bounds, (digest >> 16) / 2**48)].right
        return 0 if rng.random() < right else SLIPS[digest % len(SLIPS)]

    return slip


def main() -> None:
    """Makes the policy that the command line names, in its folder."""
    parser = argparse.ArgumentParser(
        prog="python -m astarpo.verbs.demo_policy",
        description="Makes a policy that is shipped, in minutes.",
    )
    parser.add_argument("name", choices=list(POLICIES), help="which one")
    parser.add_argument("out", type=Path, metavar="FOLDER", help="folder for the policy")
    arguments = parser.parse_args()
    try:
        check_folder(arguments.out)
    except UserError as error:
        parser.error(str(error))
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    policy = make_policy(POLICIES[arguments.name])
    with atomic_directory(arguments.out) as path:
        save_model(path, policy)


if __name__ == "__main__":
    main()
