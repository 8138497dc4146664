"""Imports go down: a room imports only rooms below it, and no import hides in a function."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "astarpo"

# From the ground up; rooms of one floor do not know each other.
FLOORS = (
    {"types", "verify"},
    {"runtime"},
    {"config"},
    {"tasks", "models"},
    {"grading", "algorithms", "engines"},
    {"rollout", "values"},
    {"rundir", "evaluation"},
    {"training"},
    {"reports"},
    {"stages"},
    {"experiments"},
    {"verbs"},
    {"api"},
    {"__init__"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Imports inside a function that keep something slow or optional from being loaded for nothing.
DEFERRED = {"__init__.py", "__main__.py", "verbs/report.py", "verify/reading.py"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> list[tuple[ast.stmt, str]]:
    """Statements that import a part of the package, with that part's dotted name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        found += [(node, name) for name in names if name.split(".")[0] == "astarpo"]
    return found


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def test_every_room_has_a_floor():
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in modules()}
    assert rooms == FLOOR.keys()


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path):
    parts = path.relative_to(SOURCE)
    own = parts.parts[0].removesuffix(".py")
    top = ast.parse(path.read_text()).body
    lines = {node.lineno for node in top}
    for node, name in imports(path):
        assert room(name) == own or FLOOR[room(name)] < FLOOR[own], f"{parts} imports {name}"
        assert node.lineno in lines or str(parts) in DEFERRED, f"{parts} hides its import of {name}"


def test_modules_of_a_room_make_no_circle():
    graph = {
        "astarpo." + ".".join(p.relative_to(SOURCE).with_suffix("").parts): {
            n for _, n in imports(p)
        }
        for p in modules()
    }
    graph = {name.removesuffix(".__init__"): found for name, found in graph.items()}
    while graph:
        free = {name for name, found in graph.items() if not found & graph.keys() - {name}}
        assert free, f"a circle of imports among {sorted(graph)}"
        graph = {name: found for name, found in graph.items() if name not in free}
