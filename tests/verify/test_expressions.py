from fractions import Fraction

import pytest

from astarpo.verify.expressions import ExpressionError, parse_expression


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("7", 7, (7,)),
        ("8*3/1", 24, (8, 3, 1)),
        ("2+3*4", 14, (2, 3, 4)),
        ("(2+3)*4", 20, (2, 3, 4)),
        ("10-4-3", 3, (10, 4, 3)),
        ("100/10/5", 2, (100, 10, 5)),
        ("8-(3-1)", 6, (8, 3, 1)),
        ("-3+5", 2, (3, 5)),
        ("2*-3", -6, (2, 3)),
        ("-(1+2)*3", -9, (1, 2, 3)),
        ("--4", 4, (4,)),
        ("1/3+1/6", Fraction(1, 2), (1, 3, 1, 6)),
        (" ( 1 + 2 ) ", 3, (1, 2)),
        ("6×4÷2\u22121", 11, (6, 4, 2, 1)),  # noqa: RUF001
        (r"6\times4\div2-1", 11, (6, 4, 2, 1)),
        (r"6 \cdot 4", 24, (6, 4)),
        ("6x4", 24, (6, 4)),
        ("6 X 4", 24, (6, 4)),
        (r"6\*4", 24, (6, 4)),
        ("[(1+2)*3]/9", 1, (1, 2, 3, 9)),
        (r"\left(1+2\right)*3", 9, (1, 2, 3)),
        (r"\frac{8}{4}", 2, (8, 4)),
        (r"16/\dfrac{8}{1+\frac{6}{2}}", 8, (16, 8, 1, 6, 2)),
    ],
)
def test_computes_exactly(text, value, numbers):
    expression = parse_expression(text)
    assert (expression.value, expression.numbers) == (value, numbers)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "1+",
        "*2",
        "(1",
        "1)",
        "1 2",
        "2**3",
        "9**9**9",
        "5//2",
        "1.5",
        "x",
        "1=1",
        "2^3",
        "1/0",
        "1/(2-2)",
        "f(1)",
        "[1)",
        "(1]",
        "6xx4",
        "x4",
        r"\times4",
        r"6\timesx4",
        r"\frac{8}",
        r"\frac{8}{0}",
        r"\frac{}{2}",
        "{8}",
        "(1)(2)",
        "+1",
        "1\x00",
        "\ud800",
        "__import__('os')",
    ],
)
def test_refuses_everything_else(text):
    with pytest.raises(ExpressionError):
        parse_expression(text)


@pytest.mark.parametrize("text", ["(" * 100_000, "-" * 100_000, "9" * 100_000, "1+" * 50_000 + "1"])
def test_refuses_monsters_at_once(text):
    with pytest.raises(ExpressionError, match="longer than"):
        parse_expression(text)


def test_depth_costs_nothing():
    assert parse_expression("(" * 490 + "1" + ")" * 490).value == 1
    assert parse_expression("-" * 998 + "1").value == 1
