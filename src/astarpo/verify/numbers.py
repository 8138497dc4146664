r"""Numbers in text: found in linear time, read exactly, compared as fractions.

What counts as a number: `18`, `-0.50`, `.5`, `1,000` (only where commas part thousands), `$18`,
`-$18`, `1e3`, and a quotient of two of these without spaces, `3/4`. Percent signs and units are
no part of it. Numbers longer than `MAX_NUMBER_CHARS` are unreadable rather than slow.

A sentence may also write `1 000`, `1{,}000`, `\frac{1}{2}`, `2 1/2`, `10^3`, `2 \times 10^3`,
`5 million` and `5k`. It states a number if it holds one alone, or is an equation that ends in one.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

MAX_NUMBER_CHARS = 1000
"""Far below the 4300 digits at which Python's `int` refuses, far above any honest answer."""

_UNSIGNED = r"(?:[0-9][0-9,]*+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
# A minus right after a digit, a letter or a closing bracket subtracts; elsewhere it is a sign.
# Every part takes all it can and none can fail late, so the search is linear on any text.
NUMBER = re.compile(rf"(?:(?<![0-9A-Za-z)\]}}])[-\u2212]\\?[$€£¥]?)?{_UNSIGNED}(?:/{_UNSIGNED})?")
"""One number in running text, commas not yet checked."""

_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_DECIMAL = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
_WHOLE = re.compile(rf"([-+]?{_DECIMAL})(?:/({_DECIMAL}))?")
_CURRENCY = re.compile(r"^([-+]?)\\?[$€£¥]\s*")

_SCALES = {
    name: 1000**i for i, name in enumerate(("thousand", "million", "billion", "trillion"), 1)
}
_SCALES["hundred"] = 100
_LETTERS = {"k": 1000, "K": 1000, "M": 1000**2}
_NUMERAL = re.compile(
    rf"(?P<number>{NUMBER.pattern})(?P<proper>\ [0-9]+/[0-9]+)?"
    r"(?P<power>\^[-+]?[0-9]+)?(?:\ \*\ 10\^(?P<ten>[-+]?[0-9]+))?"
    rf"(?P<letter>(?-i:[{''.join(_LETTERS)}])\b)?(?P<scales>(?:\s?(?:{'|'.join(_SCALES)})\b)*)",
    re.IGNORECASE,
)
_MAX_EXPONENT_CHARS = 4
_UNIT_EXPONENT = re.compile(r"[A-Za-z]\^?\Z")
_OPERATOR = re.compile(
    r"[√π±×÷]"  # noqa: RUF001
    r"|\\(?:sqrt|[dtc]?frac|pi|pm|times|cdot|div|binom)(?![A-Za-z])|\s[+*/]\s"
)
_SEVERAL = re.compile(r"\b(?:or|and)\b|[,;]\s", re.IGNORECASE)
_EITHER = re.compile(r"[^.!?\n]{0,40}\bor\b[^.!?\n]{0,40}", re.IGNORECASE)

_VULGAR = {c: unicodedata.normalize("NFKC", c).replace("\u2044", "/") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_DIGITS_IN_BRACES = r"\s?\{\s?([0-9][0-9.,]*)\s?\}"
# In this order: what stands later reads what was rewritten earlier.
_REWRITES = [
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|textrm|mbox)\{([^{}]*)\}"), r"\1"),
    (re.compile(rf"(?<=[0-9])\s?(?=\\[dtc]?frac|[{''.join(_VULGAR)}])"), " "),
    (re.compile(rf"[{''.join(_VULGAR)}]"), lambda match: _VULGAR[match[0]]),
    (re.compile(rf"\\[dtc]?frac{_DIGITS_IN_BRACES}{_DIGITS_IN_BRACES}"), r"\1/\2"),
    (re.compile(r"\\[dtc]?frac\s?([0-9])\s?([0-9])"), r"\1/\2"),
    (re.compile(r"⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+"), lambda match: "^" + match[0].translate(_RAISED)),
    (re.compile(r"\^\s?\{\s?([-+]?[0-9]+)\s?\}"), r"^\1"),
    (re.compile(r"(?<=[0-9])\s?\*\*\s?(?=[-+]?[0-9])"), "^"),
    (re.compile(r"(?<=[0-9])\s?(?:\\times|\\cdot|[×⋅·*xX])\s?(?=10\^)"), " * "),  # noqa: RUF001
    (
        re.compile(
            r"(?<![0-9.,])[1-9][0-9]{0,2}(\{,\}|,?\\[,!; ]|[ \u00a0\u2009\u202f])[0-9]{3}"
            r"(?:\1[0-9]{3})*(?![0-9])"
        ),
        lambda match: match[0].replace(match[1], ","),
    ),
]


class Stated(NamedTuple):
    """A number as a text states it.

    Attributes:
        text: How it is written, spelled plainly: `1,000` for `1{,}000`.
        value: What it is; None where it looks like a number and cannot be read as one.
    """

    text: str
    value: Fraction | None


def parse_number(text: str) -> Fraction | None:
    """Reads a text that is one number and nothing else; a closing full stop may follow it.

    Returns:
        Its exact value, or None where the text is not a number or is too long to be one.
    """
    text = text.strip()
    if len(text) > MAX_NUMBER_CHARS:
        return None
    text = _CURRENCY.sub(r"\1", text.replace("\u2212", "-").removesuffix("."))
    plain = _GROUPED.sub(lambda group: group[0].replace(",", ""), text)
    match = _WHOLE.fullmatch(plain)
    if match is None:
        return None
    numerator, denominator = Fraction(match[1]), Fraction(match[2] or 1)
    return numerator / denominator if denominator else None


def plain_notation(text: str) -> str:
    r"""Spells numbers plainly: `1{,}000` as `1,000`, `\frac{1}{2}` as `1/2`, `10^{3}` as `10^3`."""
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def stated_number(sentence: str) -> Stated | None:
    """Returns the one number that a sentence states.

    Of an equation that is its right side; a number on the left must be the same. Nothing is
    computed, and of several numbers none is chosen: `5 or 6` and `5 + 6` state none.

    Returns:
        None where there is no number, more than one, or a formula.
    """
    *sides, last = plain_notation(sentence).split("=")
    stated = _only_number(last)
    if stated is None:
        return None
    for side in sides:
        other = _only_number(side)
        is_bare = other is not None and not any(map(str.isalpha, side.replace(other.text, "")))
        if _SEVERAL.search(side) or (is_bare and other.value != stated.value):
            return None
    return stated


def last_number(text: str) -> Stated | None:
    """Returns the last number in a text, None where there is none. `5 or 6` cannot be read."""
    plain = plain_notation(text)
    found = deque(_find(plain), maxlen=2)
    if len(found) == 2 and _EITHER.fullmatch(plain, found[0].end(), found[1].start()):
        return Stated(plain[found[0].start() : found[1].end()], None)
    return _stated(found[-1]) if found else None


def _only_number(plain: str) -> Stated | None:
    found = list(islice(_find(plain), 2))
    if len(found) != 1 or _OPERATOR.search(_NUMERAL.sub("", plain)):
        return None
    return _stated(found[0])


def _find(plain: str) -> Iterator[re.Match[str]]:
    """The numbers in a text, except those that belong to a unit before them, as in `18 m^2`."""
    is_first = True
    for match in _NUMERAL.finditer(plain):
        before = plain[max(0, match.start() - 2) : match.start()]
        if is_first or not _UNIT_EXPONENT.search(before):
            yield match
        is_first = False


def _stated(match: re.Match[str]) -> Stated:
    return Stated(match[0].rstrip(","), _value(match))


def _value(match: re.Match[str]) -> Fraction | None:
    """What a match of `_NUMERAL` amounts to."""
    number = match["number"].rstrip(",")
    value = parse_number(number)
    if value is None:
        return None
    if match["proper"]:
        part = parse_number(match["proper"])
        if part is None or part >= 1 or value.denominator != 1 or "/" in number:
            return None
        value += part if value >= 0 else -part
    if exponent := match["power"] or match["ten"]:
        # Any other power is something to compute, not a way to write a number.
        if match["power"] and (match["ten"] or number.lstrip("-\u2212") != "10"):
            return None
        if len(exponent) > _MAX_EXPONENT_CHARS:
            return None
        value *= Fraction(10) ** (int(exponent.lstrip("^")) - bool(match["power"]))
    value *= _LETTERS.get(match["letter"], 1)
    for scale in match["scales"].lower().split():
        value *= _SCALES[scale]
    return value
