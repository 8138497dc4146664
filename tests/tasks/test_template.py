import pytest

from astarpo.tasks.rows import Row
from astarpo.tasks.template import Template
from astarpo.types import UserError

ROW = Row("line 3", 2, {"Body": "Al has 2.", "a.b": "x", "n": 4.0, "none": None, "my q": "Why?"})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{Body} {my q}", "Al has 2. Why?"),
        ("{a.b}", "x"),
        (r"{Body} Put it in \boxed{{}}.", r"Al has 2. Put it in \boxed{}."),
        ("Q: {Body}\nA:", "Q: Al has 2.\nA:"),
        ("{n}", "4.0"),
    ],
)
def test_columns_are_filled_in(template, text):
    assert Template.of(template).fill(ROW, str) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no column", "names no column"),
        (r"{Body} \boxed{}", "{} names no column; write {{}} for braces"),
        ("{Body", "write {{ and }} for braces"),
        ("{Body!r}", "a column's name alone"),
        ("{Body:>9}", "a column's name alone"),
        ("{body}", "line 3: no column 'body'.*did you mean Body?"),
        ("{none}", "line 3: none is empty"),
    ],
)
def test_mistakes_are_named(template, message):
    with pytest.raises(UserError, match=message):
        Template.of(template).fill(ROW, str)
