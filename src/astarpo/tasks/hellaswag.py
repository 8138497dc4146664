"""HellaSwag: which of four endings goes on from a text (Zellers et al. 2019).

Nothing is generated: the policy picks the ending it finds likeliest (`evaluation/choices.py`), and
what is judged here is the number of that ending. The texts are cleaned as the published code and
EleutherAI's harness clean them, so that scores compare. Not taken over from the published code: it
writes the hub's `test` split, which has no labels and so comes out empty (the labelled `validation`
split is the one that is reported), and it has no scorer.
"""

import re
from collections.abc import Iterator
from typing import ClassVar

from astarpo.tasks.benchmarks import refuse_other_split
from astarpo.tasks.sources import HubCopy, Row, published_problems
from astarpo.types import Message, Problem, UserError, Verdict

NUM_ENDINGS = 4

_LABELS = tuple(map(str, range(NUM_ENDINGS)))
# What is left of WikiHow's headings: `[header]`, `[substeps]`.
_MARK = re.compile(r"\[.*?\]")


class HellaSwag:
    """The published problems; `source` is JSON lines, Parquet (A-PO's too) or a hub name."""

    name: ClassVar[str] = "hellaswag"
    aliases: ClassVar[tuple[str, ...]] = ("Rowan/hellaswag",)
    version: ClassVar[str] = "1"
    isolated: ClassVar[bool] = False
    gold_form: ClassVar[str] = "the number of an ending, 0 to 3"

    def problems(
        self, *, source: str | None, split: str, size: int | None, seed: int
    ) -> Iterator[Problem]:
        """Yields the problems of a source in its order; see `Task.problems`."""
        refuse_other_split(self.name, split)
        copy = HubCopy("Rowan/hellaswag", split="validation")
        return published_problems(self, copy, _problem, source, split, size)

    def can_judge(self, ground_truth: str) -> bool:
        """See `Task.can_judge`."""
        return ground_truth in _LABELS

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges the number of an ending, from 0, as `evaluation/choices.py` writes it."""
        picked = response.strip()
        if picked not in _LABELS:
            return Verdict(reward=0.0, answer=None, status="no_answer")
        return Verdict(float(picked == ground_truth), picked, "ok")


def _problem(row: Row, split: str) -> Problem:
    # Only the first letter of the second sentence was meant, but every published score has it so.
    context = f"{row.text('ctx_a')} {row.text('ctx_b').capitalize()}"
    question = _clean(f"{row.text('activity_label')}: {context}")
    endings = row.fields.get("endings")
    is_list = isinstance(endings, list) and len(endings) == NUM_ENDINGS
    if not is_list or not all(isinstance(ending, str) for ending in endings):
        raise UserError(f"{row.where}: expected {NUM_ENDINGS} texts in column 'endings'")
    label = str(row.fields.get("label", ""))
    if label not in _LABELS:
        raise UserError(
            f"{row.where}: label is {label!r}, not 0 to {NUM_ENDINGS - 1}; the published test "
            "split has no labels: the validation split is the one to evaluate on"
        )
    return Problem(
        id=f"hellaswag/{split}/{row.index}",
        data_source="hellaswag",
        prompt=(Message(role="user", content=question),),
        ground_truth=label,
        ability="nlp",
        extra={
            "split": split,
            "index": row.index,
            "question": question,
            "choices": [_clean(ending) for ending in endings],
        },
    )


def _clean(text: str) -> str:
    return _MARK.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")
