"""The examples of CONTRIBUTING.md run as they stand there; each checks itself."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
EXAMPLES = re.findall(r"## (Add [^\n]+)\n.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_way_to_extend_has_an_example():
    assert [title for title, _ in EXAMPLES] == [
        line.removeprefix("## ")
        for line in PAGE.read_text().splitlines()
        if line.startswith("## Add ")
    ]


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_example_runs(title, code):
    assert "assert" in code
    exec(compile(code, f"CONTRIBUTING.md, {title}", "exec"), {"__name__": "example"})
