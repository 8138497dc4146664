r"""Equality of two answers in LaTeX, as a mathematician would judge it.

Asked in this order: the same text once style and spacing are gone; the same words, digits of one
base, or plain number; the same mathematics, in a form as finished as the gold's. `reading.py`
tells how text becomes a tree safely, `finished.py` what makes a form finished.

Comparison may still take for ever: call `equal` on model output in a worker only.
"""

import re
from functools import lru_cache

from astarpo.verify.notation import (
    UnreadableLatexError,
    compact,
    plain,
    spelling,
    split_meridiem,
    split_percent,
    without_unit,
    words,
)
from astarpo.verify.numbers import parse_number
from astarpo.verify.reading import read
from astarpo.verify.sameness import same

MAX_LATEX_CHARS = 2000

_IN_BASE = re.compile(r"(-?[0-9A-Z.]*[0-9][0-9A-Z.]*)_\{?(\d+)\}?")
_NAMED = re.compile(r"\s*([A-Za-z](?:_\{?\w+\}?)?)\s*=([^=<>]+)")
_DECIMAL = re.compile(r"-?[\d,]*\.?\d+")


def equal(answer: str, gold: str) -> bool:
    """Says whether two LaTeX answers mean the same. Not symmetric: the gold sets the form.

    Raises:
        UnreadableLatexError: The answer differs as text from the gold and cannot be read.
    """
    if len(answer) > MAX_LATEX_CHARS:
        raise UnreadableLatexError(f"longer than {MAX_LATEX_CHARS} characters")
    answer, gold = plain(answer), plain(gold)
    if compact(answer) == compact(gold):
        return True
    named, gold_named = _NAMED.fullmatch(answer), _NAMED.fullmatch(gold)
    if named and gold_named and compact(named[1]) == compact(gold_named[1]):
        return equal(named[2], gold_named[2])  # Words and bases are no part of an equation's tree.
    said = words(answer) or words(gold)
    if said and said == spelling(answer) == spelling(gold):
        return True
    (answer, half), (gold, gold_half) = split_meridiem(answer), split_meridiem(gold)
    if half and gold_half and half != gold_half:
        return False
    answer, gold = without_unit(answer), without_unit(gold)
    if compact(answer) == compact(gold):
        return True
    return _same_percentage(answer, gold)


def warm_up() -> None:
    """Imports math-verify and builds its parsers, so that no answer is charged for it."""
    equal(r"\frac{1}{2}", r"\sqrt{x^{2}+1}")


def _same_percentage(answer: str, gold: str) -> bool:
    r"""A percent sign may miss after a whole number, and `0.5` is `50\%`; `0.2\%` is not `20`."""
    (answer, is_percentage), (gold, gold_is) = split_percent(answer), split_percent(gold)
    if is_percentage == gold_is:
        return _same_value(answer, gold)
    share, percentage = (gold, answer) if is_percentage else (answer, gold)
    number, hundredfold = parse_number(compact(share)), parse_number(compact(percentage))
    if number is None or hundredfold is None or number < 0:
        return False
    return hundredfold == (number if number.denominator == 1 else number * 100)


def _same_value(answer: str, gold: str) -> bool:
    answer_text, gold_text = compact(answer), compact(gold)
    if answer_text == gold_text:
        return True
    based, gold_based = _IN_BASE.fullmatch(answer_text), _IN_BASE.fullmatch(gold_text)
    if based and gold_based:
        return based.groups() == gold_based.groups()
    if based or gold_based:  # the base may be left out
        digits = based[1] if based else answer_text
        return digits == (gold_based[1] if gold_based else gold_text)
    if _DECIMAL.fullmatch(answer_text) and _DECIMAL.fullmatch(gold_text):
        answer_number, gold_number = parse_number(answer_text), parse_number(gold_text)
        if answer_number is not None and gold_number is not None:
            return answer_number == gold_number
    reading = read(answer)
    try:
        gold_reading = _read_gold(gold)
    except UnreadableLatexError:
        return False
    return same(reading, gold_reading)


# Each sample of a problem is compared with the same golds.
_read_gold = lru_cache(maxsize=256)(read)
