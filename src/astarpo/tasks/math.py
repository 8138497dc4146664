r"""MATH: competition problems whose answer is LaTeX in `\boxed{}`."""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import ClassVar

from astarpo.tasks.sources import HubCopy, Row, published_problems
from astarpo.types import Message, Problem, UserError, Verdict
from astarpo.verify.boxes import last_boxes
from astarpo.verify.latex import equal
from astarpo.verify.notation import UnreadableLatexError
from astarpo.verify.numbers import NUMBER

INSTRUCTION = r"Let's think step by step and output the final answer within \boxed{}."

TAIL_CHARS = 500
"""A response without a box may announce its answer within so many last characters."""

# "answer: ", "the answer is", "the answer to the question is".
_ANNOUNCEMENT = re.compile(r"\banswer\b(?:[^.\n]{0,60}?\bis\b|\s*[:=])[:*\s]*", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
# What follows a number that is the whole answer: punctuation, the end, or a word ("5 apples").
_NUMBER_ENDS = re.compile(r"[.,;:!?*)]*(?:\s+[A-Za-z]{2,}|\s*$|\s*\n)")

# Another value that follows: `5 or 6`, `$5$, and $6$`.
_ANOTHER = re.compile(r"[\s,$*]*\b(?:or|and)\s+[$*]*[-\d\\(]")


class Math:
    """The published problems; `source` is JSON lines, Parquet (verl's too) or a hub name."""

    name: ClassVar[str] = "math"
    aliases: ClassVar[tuple[str, ...]] = (
        "DigitalLearningGmbH/MATH-lighteval",
        "lighteval/MATH",
        "xDAN2099/lighteval-MATH",
        "EleutherAI/hendrycks_math",
        "hendrycks/competition_math",
    )
    version: ClassVar[str] = "2, " + ", ".join(
        f"{package} {version(package)}"
        for package in ("math-verify", "latex2sympy2_extended", "sympy")
    )
    isolated: ClassVar[bool] = True
    gold_form: ClassVar[str] = "LaTeX, such as \\frac{1}{2}"

    def problems(
        self, *, source: str | None, split: str, size: int | None, seed: int
    ) -> Iterator[Problem]:
        """Yields the problems of a source in its order; see `Task.problems`."""
        copy = HubCopy("DigitalLearningGmbH/MATH-lighteval")
        return published_problems(self, copy, _problem, source, split, size)

    def can_judge(self, ground_truth: str) -> bool:
        """See `Task.can_judge`."""
        return bool(ground_truth.strip())

    def grade(self, response: str, ground_truth: str) -> Verdict:
        r"""Judges the last box of a response, or else the answer that its end announces.

        A response without any box states an answer where its last `TAIL_CHARS` characters say so
        ("the answer is ..."). A number that merely comes last does not count: in a response that
        was cut off it is a step, not an answer. May run for ever: see `verify.latex`.
        """
        return judge_answers(stated_answers(response), [ground_truth])


def stated_answers(response: str) -> list[str]:
    """Returns the last box of a response and its neighbours, or else what its end announces."""
    if boxed := last_boxes(response):
        return boxed
    announced = announced_answer(response[-TAIL_CHARS:])
    return [] if announced is None else [announced]


def judge_answers(answers: Sequence[str], golds: Sequence[str]) -> Verdict:
    """Says whether what a response states equals a gold. May run for ever: see `verify.latex`.

    Several answers count together as a list of values, or where each of them says the same.

    Args:
        answers: What neighbouring boxes hold, often one.
        golds: Those of which any one counts.
    """
    stated = ", ".join(answers)
    if not stated:
        return Verdict(reward=0.0, answer=None, status="no_answer")
    try:
        right = any(equal(stated, gold) or _each_equals(answers, gold) for gold in golds)
    except UnreadableLatexError:
        return Verdict(reward=0.0, answer=stated, status="unparsable")
    return Verdict(float(right), stated, "ok")


def _each_equals(answers: Sequence[str], gold: str) -> bool:
    return len(answers) > 1 and all(equal(answer, gold) for answer in answers)


def announced_answer(tail: str) -> str | None:
    """Returns what follows the last "answer is" or "answer:" of a short text.

    That is the formula or the number it begins with, unless another follows; else the first formula
    of the line; else the sentence.
    """
    announcements = list(_ANNOUNCEMENT.finditer(tail))
    if not announcements:
        return None
    stated = tail[announcements[-1].end() :]
    bare = stated.removeprefix("$")
    formula, number = _FORMULA.match(stated), NUMBER.match(bare)
    rest = stated[formula.end() :] if formula else bare[number.end() :] if number else ""
    if _ANOTHER.match(rest):
        return _first_sentence(stated)
    if formula is None and number and _NUMBER_ENDS.match(rest):
        return number[0].rstrip(",")
    line = stated.partition("\n")[0]
    formula = formula or _FORMULA.search(line)
    if formula is not None:
        return next(group for group in formula.groups() if group is not None).strip()
    return _first_sentence(stated) or None


def _first_sentence(text: str) -> str:
    return re.split(r"\.(?:\s|$)", text.partition("\n")[0], maxsplit=1)[0].strip(" *")


def _problem(row: Row, split: str) -> Problem:
    question, solution = row.text("problem"), row.text("solution")
    gold = ", ".join(last_boxes(solution))
    if not gold:
        raise UserError(f"{row.where}: no answer in \\boxed{{}} in the solution")
    facts = {key: row.fields[key] for key in ("level", "type") if key in row.fields}
    return Problem(
        id=f"math/{split}/{row.index}",
        data_source="DigitalLearningGmbH/MATH-lighteval",
        prompt=(Message(role="user", content=f"{question} {INSTRUCTION}"),),
        ground_truth=gold,
        extra={
            "split": split,
            "index": row.index,
            "question": question,
            "solution": solution,
            **facts,
        },
    )
