"""Reaching a target with given numbers.

`Reach 24 with 3, 8, 1 and + - * /, each number once. Answer after ####.`
"""

import json
import operator
import random
from collections.abc import Sequence
from dataclasses import dataclass

from astarpo.tasks.made import Draft, MadeTask
from astarpo.types import Verdict
from astarpo.verify.expressions import ExpressionError, parse_expression
from astarpo.verify.marker import marked_answer
from astarpo.verify.numbers import parse_number

MAX_PRODUCT = 200
"""Keeps targets within mental arithmetic."""

# Precedence and meaning of each sign.
_OPERATORS = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.floordiv),
}


class Countdown(MadeTask):
    """Targets from `size` numbers between 1 and 20, every number used exactly once.

    The ground truth is JSON: `{"target": 24, "numbers": [3, 8, 1]}`.
    """

    name = "countdown"
    version = "2"
    default_size = 4
    sizes = range(2, 11)
    gold_form = 'JSON of whole numbers, such as {"target": 24, "numbers": [3, 8, 1]}'

    def draft(self, rng: random.Random, size: int) -> Draft:
        """Makes one problem from a random expression, so that it has a solution."""
        numbers = [rng.randint(1, 20) for _ in range(size)]
        expression, steps = _random_expression(rng, numbers)
        target = expression.value
        listed = ",".join(map(str, numbers))
        return Draft(
            label=f"{target}={listed}",
            identity=f"{target}={','.join(map(str, sorted(numbers)))}",
            question=f"Reach {target} with {', '.join(map(str, numbers))} and + - * /, "
            "each number once. Answer after ####.\n",
            ground_truth=json.dumps({"target": target, "numbers": numbers}),
            solution=f"{'; '.join(steps)}\n#### {expression.text}",
        )

    def can_judge(self, ground_truth: str) -> bool:
        """See `Task.can_judge`."""
        try:
            gold = json.loads(ground_truth)
        except (ValueError, RecursionError):
            return False
        if not isinstance(gold, dict) or not isinstance(gold.get("numbers"), list):
            return False
        return all(type(number) is int for number in (gold.get("target"), *gold["numbers"]))

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges the expression after the last `####`: its value and the numbers it uses.

        It may be an equation whose other side is the value: `8*3/1 = 24`.
        """
        answer = marked_answer(response)
        if answer is None:
            return Verdict(reward=0.0, answer=None, status="no_answer")
        left, equals, right = map(str.strip, answer.partition("="))
        stated, text = (right, left) if right.isdecimal() else (left, right)
        if not equals or not stated.isdecimal():
            stated, text = "", answer
        try:
            expression = parse_expression(text)
        except ExpressionError:
            return Verdict(reward=0.0, answer=answer, status="unparsable")
        gold = json.loads(ground_truth)
        is_right = (
            expression.value == gold["target"]
            and sorted(expression.numbers) == sorted(gold["numbers"])
            and (not stated or expression.value == parse_number(stated))
        )
        return Verdict(float(is_right), answer, "ok")


@dataclass(frozen=True, slots=True)
class _Part:
    """A number or an expression made of some of them."""

    value: int
    text: str
    precedence: int = 3  # a number binds more tightly than any sign


def _random_expression(rng: random.Random, numbers: Sequence[int]) -> tuple[_Part, list[str]]:
    """Joins random pairs until one expression is left; also returns the steps, `8*3=24`."""
    parts = [_Part(number, str(number)) for number in numbers]
    steps = []
    while len(parts) > 1:
        left, right = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        if left.value < right.value:
            left, right = right, left
        signs = ["+"]
        if left.value > right.value:  # nothing reaches 0, so that every division is defined
            signs.append("-")
        if left.value * right.value <= MAX_PRODUCT:
            signs.append("*")
        if left.value % right.value == 0:
            signs.append("/")
        part, step = _join(left, rng.choice(signs), right)
        parts.append(part)
        steps.append(step)
    return parts[0], steps


def _join(left: _Part, sign: str, right: _Part) -> tuple[_Part, str]:
    precedence, compute = _OPERATORS[sign]
    value = compute(left.value, right.value)
    left_text = f"({left.text})" if left.precedence < precedence else left.text
    # After - and / even an equal precedence needs parentheses: 8-(3-1).
    needed = right.precedence < precedence + (sign in "-/")
    right_text = f"({right.text})" if needed else right.text
    step = f"{left.value}{sign}{right.value}={value}"
    return _Part(value, f"{left_text}{sign}{right_text}", precedence), step
