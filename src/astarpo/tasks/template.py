"""A prompt made of several columns: `{Body} {Question}`."""

import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from astarpo.runtime.words import did_you_mean
from astarpo.tasks.rows import Row
from astarpo.types import UserError


@dataclass(frozen=True)
class Template:
    """Text with the names of columns in braces; `{{` and `}}` are braces themselves.

    Attributes:
        parts: Pieces of text, each with the column that follows it; None after the last.

    Example:
        >>> template = Template.of("{Body} {Question}")
        >>> template.fill(Row("line 1", 0, {"Body": "Al has 2.", "Question": "Left?"}), str)
        'Al has 2. Left?'
    """

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, text: str) -> "Template":
        """Reads a template.

        Raises:
            UserError: A brace stands alone, or something else than a column is asked for.
        """
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise UserError(f"prompt_template: {error}; write {{{{ and }}}} for braces") from error
        for _, name, form, conversion in parsed:
            if name == "":
                raise UserError("prompt_template: {} names no column; write {{}} for braces")
            if form or conversion:
                raise UserError(f"prompt_template: {{{name}...}}: a column's name alone is wanted")
        if all(name is None for _, name, _, _ in parsed):
            raise UserError("prompt_template: names no column; write it as {column}")
        return cls(tuple((literal, name) for literal, name, _, _ in parsed))

    def fill(self, row: Row, text_of: Callable[[Any], str]) -> str:
        """The text for a row.

        Args:
            row: Has the columns.
            text_of: Makes text of a column's value, which may be a number.

        Raises:
            UserError: A column is missing or empty.
        """
        return "".join(
            literal + ("" if name is None else text_of(_value(row, name)))
            for literal, name in self.parts
        )


def _value(row: Row, name: str) -> Any:
    if name not in row.fields:
        hint = did_you_mean(name, row.fields)
        raise UserError(
            f"{row.where}: no column {name!r} for --prompt-template (found {row.columns}){hint}"
        )
    if row.fields[name] is None:
        raise UserError(f"{row.where}: {name} is empty")
    return row.fields[name]
