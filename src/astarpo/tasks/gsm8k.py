"""GSM8K: grade-school word problems whose answer is a number after `####`."""

import re
from collections.abc import Iterator
from typing import ClassVar

from astarpo.tasks.sources import HubCopy, Row, published_problems
from astarpo.types import Message, Problem, UserError, Verdict
from astarpo.verify.marker import MARKER, marked_answer
from astarpo.verify.numbers import last_number, parse_number, stated_number

INSTRUCTION = 'Let\'s think step by step and output the final answer after "####".'

_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")


class Gsm8k:
    """The published problems; `source` is JSON lines, Parquet (verl's too) or a hub name."""

    name: ClassVar[str] = "gsm8k"
    aliases: ClassVar[tuple[str, ...]] = ("openai/gsm8k",)
    version: ClassVar[str] = "2"
    isolated: ClassVar[bool] = False
    gold_form: ClassVar[str] = "one number alone, such as 18"

    def problems(
        self, *, source: str | None, split: str, size: int | None, seed: int
    ) -> Iterator[Problem]:
        """Yields the problems of a source in its order; see `Task.problems`."""
        copy = HubCopy("openai/gsm8k", config="main")
        return published_problems(self, copy, _problem, source, split, size)

    def can_judge(self, ground_truth: str) -> bool:
        """See `Task.can_judge`."""
        return parse_number(ground_truth) is not None

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges the number after the last `####`; in a response without one, the last number.

        Numbers are compared by value: `18.` is `18`, and `1,000` is `1000`. A line that states no
        number or several is unparsable; see `verify.numbers.stated_number`.
        """
        line = marked_answer(response)
        if line is None:
            number = None if MARKER in response else last_number(response)
            if number is None:
                return Verdict(reward=0.0, answer=None, status="no_answer")
        else:
            number = stated_number(line)
        if number is None or number.value is None:
            return Verdict(0.0, number.text if number else line, "unparsable")
        return Verdict(float(number.value == parse_number(ground_truth)), number.text, "ok")


def _problem(row: Row, split: str) -> Problem:
    question, answer = row.text("question"), row.text("answer")
    stated = marked_answer(answer)
    gold = None if stated is None else parse_number(stated)
    if stated is None or gold is None:
        raise UserError(f"{row.where}: no number after {MARKER} in the answer")
    return Problem(
        id=f"gsm8k/{split}/{row.index}",
        data_source="openai/gsm8k",
        prompt=(Message(role="user", content=f"{question} {INSTRUCTION}"),),
        ground_truth=stated.replace(",", ""),
        extra={
            "split": split,
            "index": row.index,
            "question": question,
            "answer": answer,
            "solution": _CALCULATOR_MARK.sub("", answer),
        },
    )
