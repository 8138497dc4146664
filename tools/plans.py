"""Writes what `astarpo plan` says into the pages that show it: python -m tools.plans.

A line `<!-- plan: WORDS -->` stands before a block of text; the block becomes what the verb prints
for these words. Models of the hub are read by their configs in `tests/support/shapes`, so that no
network is needed.
"""

import json
import re
from pathlib import Path

from astarpo.cli import parse
from astarpo.runtime.tables import markdown_table
from astarpo.verbs.plan import plan

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "scaling.md"]
SHAPES = ROOT / "tests" / "support" / "shapes"

_ROWS = re.compile(r"(<!-- rows: plan_memory -->\n).*?(<!-- end of rows -->)", re.DOTALL)
_BLOCK = re.compile(r"(<!-- plan: (.*?) -->\n\n```text\n).*?(```\n)", re.DOTALL)


def filled(text: str) -> str:
    """A page with each of its blocks as the verb says it now."""
    text = _BLOCK.sub(lambda found: f"{found[1]}{shown(found[2])}\n{found[3]}", text)
    return _ROWS.sub(lambda found: f"{found[1]}{measured_rows()}\n{found[2]}", text)


def shown(words: str) -> str:
    """What the verb prints."""
    at_hand = [SHAPES / word.split("/")[1] if is_shape(word) else word for word in words.split()]
    config, _ = parse(["plan", *map(str, at_hand)])
    return plan(config).text


def measured_rows() -> str:
    """The table of what `benchmarks/plan_memory.py` found."""
    record = json.loads((ROOT / "benchmarks" / "results" / "plan_memory.json").read_text("utf-8"))
    rows = [("update, on one core", "planned, MiB", "measured, MiB", "planned / measured")]
    rows += [
        (
            row["case"],
            f"{row['planned MiB']:,.0f}",
            f"{row['measured MiB']:,.0f}",
            f"{row['planned / measured']:.2f}",
        )
        for row in record["rows"]
    ]
    return "\n".join(markdown_table(rows, right={1, 2, 3}))


def is_shape(word: str) -> bool:
    """Whether a word is the hub name of a model whose config is at hand."""
    return word.count("/") == 1 and (SHAPES / word.split("/")[1]).is_dir()


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
