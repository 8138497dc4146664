import time
from fractions import Fraction

import pytest

from astarpo.verify.numbers import MAX_NUMBER_CHARS, last_number, parse_number, stated_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("18.", 18),
        ("18.0", 18),
        (" 18\n", 18),
        ("1,000", 1000),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("$18", 18),
        (r"\$18", 18),
        ("$ 18", 18),
        ("-$5", -5),
        ("$-5", -5),
        ("+7", 7),
        ("-0.50", Fraction(-1, 2)),
        (".5", Fraction(1, 2)),
        ("\u22127", -7),
        ("007", 7),
        ("1e3", 1000),
        ("2.5E-1", Fraction(1, 4)),
        ("3/4", Fraction(3, 4)),
        ("-1.5/3", Fraction(-1, 2)),
        ("0.1", Fraction(1, 10)),
        ("12345678901234567890.1", Fraction(123456789012345678901, 10)),
    ],
)
def test_reads_exact_values(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1,00",
        "1,2",
        "10,00,000",
        "5 apples",
        "1/0",
        "1/2/3",
        "--5",
        "1e9999",
        "1 000",
        "50%",
        "\u0665",
        "1_000",
        "inf",
        "nan",
        "0x10",
        "9" * (MAX_NUMBER_CHARS + 1),
    ],
)
def test_refuses_what_is_not_one_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "number", "value"),
    [
        ("10-3", "3", 3),
        ("it is -3.", "-3", -3),
        ("(2)-5", "5", 5),
        ("she pays $1,234.50, then", "1,234.50", Fraction(2469, 2)),
        ("-$5 and -$6", "-$6", -6),
        ("between 18, and 20,", "20", 20),
        ("48/2=24", "24", 24),
        ("3/4", "3/4", Fraction(3, 4)),
        ("1e3 meters", "1e3", 1000),
        ("1,2 and 3,4", "3,4", None),
        ("-5 or 6", "-5 or 6", None),
        ("5 apples or 6 pears", "5 apples or 6", None),
        ("Take 5 or so. It is 6", "6", 6),
        ("-2 1/2", "-2 1/2", Fraction(-5, 2)),
        ("-10^2", "-10^2", -100),
        ("3 x 10^-2", "3 * 10^-2", Fraction(3, 100)),
    ],
)
def test_finds_the_last_number_in_a_text(text, number, value):
    assert last_number(text) == (number, value)


def test_a_text_without_numbers_has_none():
    assert last_number("no number") is last_number("") is stated_number("none") is None


PIECES = ["1", "1,", "1,111", "-", "1/", "1e", ".", "$", "1.", "-$", "1 "]
PIECES += ["1 000 ", "10^3", "1=", "1 or ", r"\frac{1", r"\text{", "\u00b3", "1 million ", "1  *"]


@pytest.mark.parametrize("piece", PIECES)
def test_long_texts_take_linear_time(piece):
    text = piece * (400_000 // len(piece))
    start = time.process_time()
    for find in (stated_number, last_number, parse_number):
        find(text)
    assert time.process_time() - start < 3
