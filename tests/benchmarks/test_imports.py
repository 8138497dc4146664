"""Benchmarks, tools and examples that no other test runs name parts of the package that exist."""

import ast
from importlib import import_module
from importlib.util import find_spec

import pytest

from tests.test_docs import ROOT

PROGRAMS = sorted(
    path for room in ("benchmarks", "examples", "tools") for path in (ROOT / room).rglob("*.py")
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: f"{path.relative_to(ROOT)}")
def test_what_a_program_imports_of_the_package_is_there(program):
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "astarpo":
            module = import_module(node.module)
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), name
