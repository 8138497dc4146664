r"""Integer arithmetic from text: `8*(3-1)/2` to an exact value, parsed but never evaluated.

Operators are + - * /, unary minus, parentheses and square brackets; LaTeX's `\times`, `\div`,
`\frac{}{}` and their like mean the same. There is no power, so a value has no more digits than its
text.

`ast.parse` turns text into a tree of Python's syntax and goes no further: no code object is made,
so there is nothing that could run. (It raises the audit event `compile`; the workers of
`astarpo.grading` refuse `exec`, which is a code object that starts.) Only digits, operators and
brackets reach it, and of its nodes only those of the list above are computed, here, as fractions.
"""

import ast
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

MAX_EXPRESSION_CHARS = 1000

_TYPOGRAPHIC = str.maketrans("×·⋅xX÷\u2212", "*****/-")  # noqa: RUF001
_LATEX = {r"\times": "*", r"\cdot": "*", r"\*": "*", r"\div": "/", r"\left": "", r"\right": ""}
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|\*)")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_FOREIGN = re.compile(r"[^0-9+*/()\[\]\s-]")
_NUMBER = re.compile(r"[0-9]+")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
_INNERMOST = re.compile(r"\(([^][()]*)\)|\[([^][()]*)\]")
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


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
    if len(text) > MAX_EXPRESSION_CHARS:
        raise ExpressionError(f"longer than {MAX_EXPRESSION_CHARS} characters")
    text = _without_latex(text).translate(_TYPOGRAPHIC)
    if foreign := _FOREIGN.search(text):
        raise ExpressionError(f"{foreign[0]!r} is not arithmetic")
    numbers = tuple(map(int, _NUMBER.findall(text)))
    text = _LEADING_ZEROS.sub("", text)  # Python refuses them.
    # Brackets are computed from the inside out and named `_0`, `_1`, ...: Python's own parser
    # refuses more than 200 in one another, and it would take `(2)(3)` for a call.
    known: list[Fraction] = []
    while bracket := _INNERMOST.search(text):
        known.append(_value(bracket[1] or bracket[2] or "", known))
        text = f"{text[: bracket.start()]} _{len(known) - 1} {text[bracket.end() :]}"
    return Expression(_value(text, known), numbers)


def _without_latex(text: str) -> str:
    """Writes fractions, from the inside out, as quotients, and other commands as operators."""
    replaced = True
    while replaced:
        text, replaced = _FRACTION.subn(r"((\1)/(\2))", text)
    return _COMMAND.sub(lambda match: _LATEX.get(match[0], match[0]), text)


def _value(text: str, known: Sequence[Fraction]) -> Fraction:
    """The value of an expression without brackets, in which `_0` stands for `known[0]`."""
    try:
        tree = ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:  # the last two of a full stack
        raise ExpressionError("operators and numbers do not make an expression") from error
    values: dict[ast.AST, Fraction] = {}
    # Breadth first and backwards, parts come before wholes: no recursion, whatever the depth.
    for node in reversed(list(ast.walk(tree))):
        match node:
            case ast.Constant(value=int(number)):
                values[node] = Fraction(number)
            case ast.Name(id=name):
                values[node] = known[int(name.removeprefix("_"))]
            case ast.UnaryOp(op=ast.USub(), operand=part):
                values[node] = -values[part]
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
                if isinstance(sign, ast.Div) and values[right] == 0:
                    raise ExpressionError("division by zero")
                values[node] = _OPERATORS[type(sign)](values[left], values[right])
            case ast.expr():
                raise ExpressionError("there is more in it than numbers and + - * /")
    return values[tree]
