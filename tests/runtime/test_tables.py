import pytest

from astarpo.runtime.tables import escape_markdown, markdown_table, text_table


def test_columns_of_text_line_up():
    assert text_table([("run", "steps", "note"), ("astar_po", "5", "")], right={1}) == [
        "run       steps  note",
        "astar_po      5",
    ]


def test_markdown_lines_up_as_well():
    assert markdown_table([("run", "n"), ("astar_po", "12,345"), ("a|b", "")], {1}) == [
        "| run      |      n |",
        "| -------- | -----: |",
        "| astar_po | 12,345 |",
        "| a\\|b     |        |",
    ]
    assert markdown_table([("", "b")]) == ["|     | b   |", "| --- | --- |"]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("astar_po=0.5", "astar_po=0.5"),
        ("_init_", r"\_init\_"),
        ("a_", r"a\_"),
        ("`*{}[]<>#\\|", r"\`\*\{\}\[\]\<\>\#\\\|"),
        ("two\n lines", "two lines"),
    ],
)
def test_text_stays_text(text, escaped):
    assert escape_markdown(text) == escaped


def test_rows_have_the_same_number_of_cells():
    with pytest.raises(ValueError, match="shorter"):
        text_table([("a", "b"), ("c",)])
