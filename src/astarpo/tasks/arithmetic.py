"""Chains of + and -.

`Compute 47 + 86 - 23 + 5. Answer after ####.`
"""

import random
from collections.abc import Callable, Sequence

from astarpo.tasks.made import Draft, MadeTask, judge_marked_number
from astarpo.types import Verdict


class Arithmetic(MadeTask):
    """Sums of `size` terms from 1 to 9, added or subtracted."""

    name = "arithmetic"
    version = "2"
    default_size = 4
    sizes = range(2, 101)

    def draft(self, rng: random.Random, size: int) -> Draft:
        """Makes one chain. Chains of the same terms in another order count as one."""
        first = rng.randint(1, 9)
        terms = [first] + [rng.choice((1, -1)) * rng.randint(1, 9) for _ in range(size - 1)]
        chain = str(first) + "".join(f"{term:+d}" for term in terms[1:])
        return Draft(
            label=chain,
            identity=",".join(map(str, sorted(terms))),
            question=_question(terms),
            ground_truth=str(sum(terms)),
            solution=worked_solution(terms),
        )

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges the number after the last `####`."""
        return judge_marked_number(response, ground_truth)


def worked_solution(
    terms: Sequence[int], slip: Callable[[int, int], int] = lambda total, term: 0
) -> str:
    """Writes a chain out step by step and states what it comes to after `####`.

    Args:
        terms: Signed terms, in order.
        slip: What to add to the result of a step, by its total so far and its term; the chain goes
            on from there. The shipped policies learn from solutions with slips.
    """
    steps = []
    total = terms[0]
    for term in terms[1:]:
        result = total + term + slip(total, term)
        steps.append(f"{total}{term:+d}={result}")
        total = result
    return f"{'; '.join(steps)}\n#### {total}"


def _question(terms: Sequence[int]) -> str:
    rest = "".join(f" {'-' if term < 0 else '+'} {abs(term)}" for term in terms[1:])
    return f"Compute {terms[0]}{rest}. Answer after ####.\n"
