"""Products of two numbers.

`Compute 47 * 86. Answer after ####.`
"""

import random

from astarpo.tasks.made import Draft, MadeTask, judge_marked_number
from astarpo.types import Verdict


class Multiply(MadeTask):
    """Products of two factors with `size` digits each."""

    name = "multiply"
    version = "2"
    default_size = 2
    sizes = range(1, 101)

    def draft(self, rng: random.Random, size: int) -> Draft:
        """Makes one product. The order of its factors does not make another problem."""
        low, high = 10 ** (size - 1), 10**size - 1
        left, right = rng.randint(low, high), rng.randint(low, high)
        return Draft(
            label=f"{left}*{right}",
            identity=f"{min(left, right)}*{max(left, right)}",
            question=f"Compute {left} * {right}. Answer after ####.\n",
            ground_truth=str(left * right),
            solution=_solution(left, right),
        )

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges the number after the last `####`."""
        return judge_marked_number(response, ground_truth)


def _solution(left: int, right: int) -> str:
    """Long multiplication: `47*86=47*80+47*6=3760+282=4042`."""
    digits = str(right)
    parts = [
        int(digit) * 10 ** (len(digits) - place)
        for place, digit in enumerate(digits, start=1)
        if digit != "0"
    ]
    steps = [f"{left}*{right}"]
    if len(parts) > 1:
        steps.append("+".join(f"{left}*{part}" for part in parts))
        steps.append("+".join(str(left * part) for part in parts))
    steps.append(str(left * right))
    return f"{'='.join(steps)}\n#### {left * right}"
