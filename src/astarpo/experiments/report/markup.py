"""Numbers as text, and tables as HTML; every text is escaped here."""

import math
from collections.abc import Sequence

from astarpo.reports.page import escape


def show(value: float | None, digits: int = 4) -> str:
    """A number for people, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def text(value: str) -> str:
    """Text as it may stand in HTML, without characters that no page may hold."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in value))


def row(head: str, cells: Sequence[str], link: str | None = None) -> str:
    """A row of numbers with its head, which may lead to an address."""
    columns = "".join(f'<td class="number">{text(cell)}</td>' for cell in cells)
    name = f'<a href="{text(link)}">{text(head)}</a>' if link else text(head)
    return f'<tr><th scope="row">{name}</th>{columns}</tr>'


def table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table that scrolls where it is too wide; all columns but the first hold numbers."""
    first, *others = heads
    cells = "".join(f'<th scope="col" class="number">{text(head)}</th>' for head in others)
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">{text(first)}</th>{cells}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def note(words: str) -> str:
    """A remark on its own."""
    return f'<p class="note">{text(words)}</p>'


def notes(remarks: Sequence[str]) -> str:
    """Remarks one below another."""
    items = "".join(f"<li>{text(remark)}</li>" for remark in remarks)
    return f'<ul class="notes">{items}</ul>' if remarks else ""
