"""Tables as text: plain for terminals, or Markdown that reads as well in one.

A table is a list of rows of cells, the first of them the heads.
"""

import re
from collections.abc import Container, Sequence

Row = Sequence[str]

# An underscore within a word, as in `astar_po`, means nothing in Markdown.
_MARKUP = re.compile(r"[\\`*{}\[\]<>|#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def text_table(rows: Sequence[Row], right: Container[int] = ()) -> list[str]:
    """Lines of columns that line up, two spaces apart; those numbered in `right` end at the right.

    Example:
        >>> for line in text_table([("run", "steps"), ("a", "5")], right={1}):
        ...     print(line)
        run  steps
        a        5
    """
    return ["  ".join(cells).rstrip() for cells in _padded(rows, right)]


def markdown_table(rows: Sequence[Row], right: Container[int] = ()) -> list[str]:
    """As `text_table`, in Markdown."""
    heads, *others = [[escape_markdown(cell) for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(heads, *others, strict=True)]
    rule = ["-" * (width - 1) + (":" if i in right else "-") for i, width in enumerate(widths)]
    return [f"| {' | '.join(cells)} |" for cells in _padded([heads, rule, *others], right)]


def escape_markdown(text: str) -> str:
    """Text that stays text in Markdown and in one cell of a table."""
    return " ".join(_MARKUP.sub(r"\\\g<0>", text).split())


def _padded(rows: Sequence[Row], right: Container[int]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
