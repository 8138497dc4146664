r"""Competition benchmarks answered in `\boxed{}`: one implementation, then the facts of each.

They serve evaluation alone, so each has only the split `test`, and their problems carry no worked
solution. Prompt and verifier are those of MATH. What differs is where the problems lie, how
the public copies lay them out, and what an answer may be.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from astarpo.tasks.math import INSTRUCTION, Math, judge_answers, stated_answers
from astarpo.tasks.sources import HubCopy, Row, published_problems
from astarpo.types import Message, Problem, UserError, Verdict
from astarpo.verify.boxes import last_boxed
from astarpo.verify.latex import MAX_LATEX_CHARS
from astarpo.verify.numbers import parse_number

SPLIT = "test"

_QUESTIONS = ("problem", "question", "prompt")
_ANSWERS = ("final_answer", "answer")
_FACTS = ("level", "subject", "type", "subfield", "answer_type", "unit")

_DOLLAR = re.compile(r"(?<!\\)\$")
_SCIENTIFIC = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+))[eE]([-+]?\d+)")
_POINT_WITHOUT_DIGITS = re.compile(r"(?<=\d)\.(?=/|$)")
_ESCAPED = re.compile(r"\\.")


class BoxedBenchmark:
    """A benchmark; a subclass states its facts.

    Attributes:
        copies: Hub copies, the usual one first.
        answers: The numbers that an answer may be; None where it may be any LaTeX.
        subset: Column values that every row must have, where it has the column.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]]
    version: ClassVar[str] = f"1, math {Math.version}"
    isolated: ClassVar[bool] = True
    gold_form: ClassVar[str] = "LaTeX with braces that match, or a JSON list of such answers"
    copies: ClassVar[tuple[HubCopy, ...]]
    answers: ClassVar[range | None] = None
    subset: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        """Names of copies serve as `data_source` as well."""
        cls.aliases = tuple(dict.fromkeys(copy.name for copy in cls.copies))
        if cls.answers is not None:
            cls.gold_form = f"a whole number from {cls.answers[0]} to {cls.answers[-1]}"

    def problems(
        self, *, source: str | None, split: str, size: int | None, seed: int
    ) -> Iterator[Problem]:
        """Yields the problems of a source in its order; see `Task.problems`."""
        refuse_other_split(self.name, split)
        usual = self.copies[0] if source is None else HubCopy(source)
        copy = next((copy for copy in self.copies if copy.name == source), usual)
        return published_problems(self, copy, self._problem, source, split, size)

    def can_judge(self, ground_truth: str) -> bool:
        """See `Task.can_judge`."""
        return all(map(self._is_answer, accepted_answers(ground_truth)))

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges the answer that MATH's rules find, against each that is accepted.

        Units after a number do not count, as in MATH; `4.5e33` is read as a number. May run for
        ever: see `verify.latex`.
        """
        answers = stated_answers(response)
        golds = [_spelled_out(gold) for gold in accepted_answers(ground_truth)]
        verdict = judge_answers([_spelled_out(answer) for answer in answers], golds)
        return replace(verdict, answer=", ".join(answers) or None)

    def _problem(self, row: Row, split: str) -> Problem:
        # Copies differ in capitals: `Problem`, `Answer`.
        fields = {name.lower(): value for name, value in row.fields.items()}
        for column, value in self.subset.items():
            if value not in (given := str(fields.get(column) or value)):
                raise UserError(
                    f"{row.where}: {column} is {given!r}; {self.name} is {value!r} only"
                )
        question = _question(fields, row)
        golds = [_tidy(gold) for gold in _golds(fields, row)]
        for gold in golds:
            if not self._is_answer(gold):
                raise UserError(f"{row.where}: {gold!r} cannot be an answer of {self.name}")
        facts = {name: str(fields[name]) for name in _FACTS if fields.get(name) is not None}
        return Problem(
            id=f"{self.name}/{split}/{row.index}",
            data_source=self.name,
            prompt=(Message(role="user", content=f"{question} {INSTRUCTION}"),),
            ground_truth=golds[0] if len(golds) == 1 else json.dumps(golds),
            extra={"split": split, "index": row.index, "question": question, **facts},
        )

    def _is_answer(self, gold: str) -> bool:
        if self.answers is not None:
            return parse_number(gold) in self.answers
        braces = _ESCAPED.sub("", gold)
        balanced = braces.count("{") == braces.count("}")
        return bool(gold) and balanced and len(gold) <= MAX_LATEX_CHARS


def refuse_other_split(task: str, split: str) -> None:
    """Refuses every split but `test`: benchmarks are not for training."""
    if split != SPLIT:
        raise UserError(
            f"{task} is a benchmark and has the split {SPLIT!r} alone, not {split!r}; "
            f"give --split {SPLIT}"
        )


def accepted_answers(ground_truth: str) -> list[str]:
    """The answers of which any one counts: a JSON list of texts, or else the one answer."""
    if ground_truth.startswith('["'):
        try:
            answers = json.loads(ground_truth)
        except ValueError:
            return [ground_truth]
        if all(isinstance(answer, str) for answer in answers):
            return answers
    return [ground_truth]


def _question(fields: dict[str, Any], row: Row) -> str:
    for column in _QUESTIONS:
        if isinstance(text := fields.get(column), str) and text.strip():
            # OlympiadBench: what several questions of one problem share.
            context = fields.get("context")
            return f"{context}\n{text}" if context else text
    wanted = " or ".join(_QUESTIONS)
    raise UserError(f"{row.where}: expected a text column {wanted}, found {row.columns}")


def _golds(fields: dict[str, Any], row: Row) -> list[str]:
    """The answers of a row, or the one boxed in its solution."""
    value = next((fields[name] for name in _ANSWERS if fields.get(name) is not None), None)
    if isinstance(value, list):
        texts = [_text(item) for item in value]
        # OlympiadBench marks where all of the values are wanted, not any one.
        if fields.get("is_multiple_answer"):
            texts = [", ".join(filter(None, texts))]
    elif value is not None:
        texts = [_text(value)]
    else:
        solution = fields.get("solution")
        texts = [last_boxed(solution) if isinstance(solution, str) else None]
    golds = [text for text in texts if text]
    if not golds or len(golds) < len(texts):
        raise UserError(
            f"{row.where}: no answer in column {' or '.join(_ANSWERS)} and none in \\boxed{{}} in "
            "column solution"
        )
    return golds


def _text(value: Any) -> str | None:
    """An answer as LaTeX: `27.0` in a column of numbers is 27."""
    if isinstance(value, str):
        boxed = last_boxed(value)
        return (value if boxed is None else boxed).strip() or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(int(value)) if value == int(value) else repr(value)


def _tidy(gold: str) -> str:
    """A published answer as LaTeX: without dollar signs, and without what is left of Python."""
    gold = _DOLLAR.sub("", gold).replace("np.", "\\")
    return _POINT_WITHOUT_DIGITS.sub("", gold).strip()


def _spelled_out(answer: str) -> str:
    r"""Turns `4.5e33`, as people type it, into LaTeX, where `e` is Euler's number."""
    number = _SCIENTIFIC.fullmatch(answer.strip().strip("$"))
    return rf"{number[1]} \times 10^{{{int(number[2])}}}" if number else answer


class Math500(BoxedBenchmark):
    """500 test problems of MATH that OpenAI's "Let's verify step by step" held out."""

    name = "math500"
    copies = (HubCopy("HuggingFaceH4/MATH-500"), HubCopy("math-ai/math500"))


class MinervaMath(BoxedBenchmark):
    """272 undergraduate questions of MIT's OpenCourseWare (Lewkowycz et al. 2022)."""

    name = "minerva_math"
    copies = (HubCopy("math-ai/minervamath"),)


class OlympiadBench(BoxedBenchmark):
    """674 open-ended olympiad problems, English and without pictures (He et al. 2024)."""

    name = "olympiadbench"
    copies = (
        HubCopy("math-ai/olympiadbench"),
        HubCopy("Hothan/OlympiadBench", config="OE_TO_maths_en_COMP", split="train"),
    )
    subset: ClassVar = {"modality": "Text-only", "language": "English", "subject": "Math"}


class Amc23(BoxedBenchmark):
    """40 problems of AMC 12, 2023, reworded to ask for a whole number."""

    name = "amc23"
    copies = (HubCopy("math-ai/amc23"),)
    answers = range(-(10**4), 10**4)


class Aime24(BoxedBenchmark):
    """AIME I and II of 2024: 30 problems."""

    name = "aime24"
    copies = (
        HubCopy("math-ai/aime24"),
        HubCopy("HuggingFaceH4/aime_2024", split="train"),
        HubCopy("Maxwell-Jia/AIME_2024", split="train"),
    )
    answers = range(1000)


class Aime25(BoxedBenchmark):
    """AIME I and II of 2025: 30 problems."""

    name = "aime25"
    copies = (HubCopy("math-ai/aime25"), HubCopy("MathArena/aime_2025", split="train"))
    answers = range(1000)


class Hmmt(BoxedBenchmark):
    """HMMT, February 2025: 30 problems."""

    name = "hmmt"
    copies = (HubCopy("MathArena/hmmt_feb_2025", split="train"),)
