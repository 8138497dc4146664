r"""Integer arithmetic from text: `8*(3-1)/2` to an exact value, parsed by hand and never evaluated.

Operators are + - * /, unary minus, parentheses and square brackets; LaTeX's `\times`, `\div`,
`\frac{}{}` and their like mean the same. There is no power, so a value has no more digits than its
text; there is no recursion, so depth costs nothing.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

MAX_EXPRESSION_CHARS = 1000

_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()\[\]])")
_TYPOGRAPHIC = str.maketrans("×·⋅xX÷\u2212", "*****/-")  # noqa: RUF001
_LATEX = {r"\times": "*", r"\cdot": "*", r"\*": "*", r"\div": "/", r"\left": "", r"\right": ""}
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|\*)")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_CLOSING = {"(": ")", "[": "]"}
_BINARY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_NEGATE = "negate"
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, _NEGATE: 3}


class ExpressionError(ValueError):
    """A text is not an arithmetic expression, or it divides by zero."""


@dataclass(frozen=True, slots=True)
class Expression:
    """What an arithmetic text amounts to.

    Attributes:
        value: Its exact value.
        numbers: The numbers written in it, in order.
    """

    value: Fraction
    numbers: tuple[int, ...]


def parse_expression(text: str) -> Expression:
    """Parses and computes integer arithmetic.

    Raises:
        ExpressionError: The text is anything else, is too long, or divides by zero.
    """
    tokens = _tokens(text)
    values: list[Fraction] = []
    operators: list[str] = []
    operand_next = True
    for token in tokens:
        if operand_next:
            if token.isdigit():
                values.append(Fraction(int(token)))
                operand_next = False
            elif token in _CLOSING:
                operators.append(token)
            elif token == "-":
                operators.append(_NEGATE)
            else:
                raise ExpressionError(f"a number should stand before {token!r}")
        elif token in _BINARY:
            _reduce(values, operators, _PRECEDENCE[token])
            operators.append(token)
            operand_next = True
        elif token in _CLOSING.values():
            _reduce(values, operators, 0)
            if not operators or _CLOSING[operators.pop()] != token:
                raise ExpressionError("a parenthesis closes that was never opened")
        else:
            raise ExpressionError(f"an operator should stand before {token!r}")
    if operand_next:
        raise ExpressionError("the expression ends too early")
    _reduce(values, operators, 0)
    if operators:
        raise ExpressionError("a parenthesis opens that is never closed")
    return Expression(values[0], tuple(int(token) for token in tokens if token.isdigit()))


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_EXPRESSION_CHARS:
        raise ExpressionError(f"longer than {MAX_EXPRESSION_CHARS} characters")
    text = _without_latex(text).translate(_TYPOGRAPHIC).rstrip()
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"{text[position]!r} is not arithmetic")
        tokens.append(match[1])
        position = match.end()
    return tokens


def _without_latex(text: str) -> str:
    """Writes fractions, from the inside out, as quotients, and other commands as operators."""
    replaced = True
    while replaced:
        text, replaced = _FRACTION.subn(r"((\1)/(\2))", text)
    return _COMMAND.sub(lambda match: _LATEX.get(match[0], match[0]), text)


def _reduce(values: list[Fraction], operators: list[str], precedence: int) -> None:
    """Applies the waiting operators that bind at least this tightly, back to a parenthesis."""
    while operators and operators[-1] not in _CLOSING and _PRECEDENCE[operators[-1]] >= precedence:
        name = operators.pop()
        if name == _NEGATE:
            values.append(-values.pop())
            continue
        right, left = values.pop(), values.pop()
        if name == "/" and right == 0:
            raise ExpressionError("division by zero")
        values.append(_BINARY[name](left, right))
