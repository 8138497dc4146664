"""The README and the docs name files and modules that are there."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_FILE = re.compile(r"(?<![\w/.])((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)\b")
_MODULE = re.compile(r"python -m ((?:astarpo|benchmarks|tests)[\w.]*)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    text = page.read_text()
    for link in _LINK.findall(text):
        assert (page.parent / link).exists(), link
    for name in _FILE.findall(text):
        places = [ROOT / name, ROOT / "src" / "astarpo" / name]
        assert any(place.exists() for place in places), name
    for module in _MODULE.findall(text):
        assert importlib.util.find_spec(module), module
