"""A user's own rows as problems: columns are mapped, all others kept for reward functions."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astarpo.runtime.words import did_you_mean
from astarpo.tasks.problem_set import VERL_COLUMNS, read_messages, read_row
from astarpo.tasks.rows import Refuse, Row, stop
from astarpo.tasks.sources import read_rows
from astarpo.tasks.template import Template
from astarpo.types import Message, Problem, UserError

PROMPT_IS_TEXT = "prompt_is_text"
"""In a problem's `extra`: its prompt came as text, so the function gets text."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a row becomes which part of a problem.

    Attributes:
        prompt: Column with the question: text, or a list of messages; None for `prompt`.
        template: Makes the question of several columns instead.
        answer: Column with the reference answer; None for `answer`.
        instruction: Text put after every question.
    """

    prompt: str | None = None
    answer: str | None = None
    instruction: str | None = None
    template: Template | None = None

    @property
    def are_given(self) -> bool:
        """Whether the user named any."""
        return any((self.prompt, self.answer, self.instruction, self.template))


class Left:
    """Counts rows that are left out, as the `refuse` of `own_problems`.

    Attributes:
        count: How many were.
        first: What was wrong with the first; None where none was.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: UserError | None = None

    def __call__(self, error: UserError) -> None:
        """Counts a row."""
        self.count += 1
        self.first = self.first or error


def own_problems(
    source: str | Iterable[Mapping[str, Any]],
    split: str,
    columns: Columns,
    data_source: str | None,
    *,
    needs_answer: bool,
    refuse: Refuse = stop,
) -> Iterator[Problem]:
    """Yields a problem for every row, in the source's order.

    Rows in verl's layout are taken as they are unless columns are given.

    Args:
        source: See `read_rows`.
        split: Of a hub data set; else only the name that the problems carry.
        columns: The mapping.
        data_source: What judges them; None to keep what rows in verl's layout say.
        needs_answer: Whether a row without a reference answer is a mistake.
        refuse: Called with what is wrong with a row, which is left out if this returns.
    """
    used: set[str] = set()
    for row in read_rows(source, split, refuse):
        is_verl = row.fields.keys() >= VERL_COLUMNS and not columns.are_given
        if not is_verl and data_source is None:  # True of every row.
            raise UserError(
                f"{row.where}: what judges these answers? Give --reward: a task's name such as "
                "math, or a function of yours as FILE.py:NAME"
            )
        try:
            if is_verl:
                problem = read_row(row.fields, used, row.where, row.index)
                used.add(problem.id)
            else:
                assert data_source is not None
                stem = Path(source).stem if isinstance(source, str) else "rows"
                group = f"{stem}/{split}"
                problem = _to_problem(row, group, split, columns, data_source, needs_answer)
        except UserError as error:
            refuse(error)
            continue
        yield problem


def _to_problem(
    row: Row, group: str, split: str, columns: Columns, data_source: str, needs_answer: bool
) -> Problem:
    answer_column = columns.answer or "answer"
    answer = row.fields.get(answer_column)
    prompt_column = "prompt_template" if columns.template else columns.prompt or "prompt"
    prompt = (
        columns.template.fill(row, _text)
        if columns.template
        else _column(row, prompt_column, "--prompt-column")
    )
    if answer is None and (needs_answer or columns.answer):
        _column(row, answer_column, "--answer-column")
        raise UserError(f"{row.where}: {answer_column} is empty")
    if isinstance(prompt, str):
        messages = (Message(role="user", content=prompt),)
    else:
        messages = read_messages(prompt, f"{row.where}, column {prompt_column}")
    if not messages[-1]["content"].strip():
        raise UserError(f"{row.where}: {prompt_column} is empty")
    if columns.instruction:
        asked = f"{messages[-1]['content']} {columns.instruction}"
        messages = (*messages[:-1], Message(role=messages[-1]["role"], content=asked))
    kept = {name: value for name, value in row.fields.items() if name != prompt_column}
    given_id = kept.pop("id", None)
    return Problem(
        id=f"{group}/{row.index}" if given_id is None else str(given_id),
        data_source=data_source,
        prompt=messages,
        ground_truth=_text(answer),
        extra={"split": split, "index": row.index, **kept, PROMPT_IS_TEXT: isinstance(prompt, str)},
    )


def _column(row: Row, name: str, flag: str) -> Any:
    if name in row.fields:
        return row.fields[name]
    hint = did_you_mean(name, row.fields)
    raise UserError(
        f"{row.where}: no column {name!r} (found {row.columns}); name it with {flag}{hint}"
    )


def _text(answer: Any) -> str:
    """A reference answer as text: 27.0, as a column of numbers with gaps has it, is 27."""
    if answer is None:
        return ""
    if isinstance(answer, float) and answer.is_integer():
        return str(int(answer))
    return json.dumps(answer) if isinstance(answer, dict | list) else str(answer)
