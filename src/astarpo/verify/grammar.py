"""math-verify's LaTeX grammar with its conversions made exact, bounded and free of `eval`.

Importing this file brings sympy and the grammar, which takes about a second: `reading.py` does so
when the first text is read.
"""

from fractions import Fraction
from math import gcd
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy
from sympy import Abs, Expr, binomial, factorial, log

from astarpo.verify.notation import UnreadableLatexError
from astarpo.verify.series import value_of_series

MAX_DIGITS = 10_000
"""Powers and factorials with more digits are not computed."""

_MAX_FACTORIAL = 3000


class Reader(_Latex2Sympy):
    """The parser of math-verify, made to read numbers without `eval` and to leave work undone.

    Attributes:
        undone: Kinds of work that the grammar did although the text had not.
        has_indices: Whether `i` counts in the text, and so is not the imaginary unit.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.undone: set[str] = set()
        self.has_indices = False
        self._converted: dict[Any, Any] = {}

    def convert_expr(self, expr: Any) -> Any:
        # Some parts are looked at twice, and each of their parts again: once is enough.
        if expr not in self._converted:
            self._converted[expr] = super().convert_expr(expr)
        return self._converted[expr]

    def parse_number(self, text: str) -> sympy.Number:
        digits = text.replace(",", "")
        if digits.isdecimal():
            return sympy.Integer(digits)
        mantissa, _, exponent = digits.lower().partition("e")
        if len(exponent) > 4:
            raise UnreadableLatexError("a number too large to compute")
        scale = Fraction(10) ** int(exponent or 0)
        return sympy.Rational(Fraction(mantissa or "0") * scale)

    def convert_atom_expr(self, atom_expr: Any) -> Any:
        # `i` is the imaginary unit unless it counts; `I` is a name like any other.
        letter = atom_expr.LETTER_NO_E()
        name = letter.getText() if letter and not atom_expr.subexpr() else ""
        if name != "I" and (name != "i" or self.has_indices):
            return super().convert_atom_expr(atom_expr)
        symbol = sympy.Symbol("I") if name == "I" else sympy.I
        raised = hasattr(atom_expr, "supexpr") and atom_expr.supexpr()
        if not raised:
            return symbol
        power = raised.expr()
        exponent = self.convert_expr(power) if power else self.convert_atom(raised.atom())
        return sympy.Pow(symbol, exponent, evaluate=False)

    def convert_exp(self, exp: Any) -> Any:
        return _bounded(super().convert_exp(exp))

    def convert_postfix(self, postfix: Any) -> Any:
        return _bounded(super().convert_postfix(postfix))

    def convert_frac(self, frac: Any) -> Any:
        result = super().convert_frac(frac)
        if getattr(result, "is_Rational", False):
            self._note_quotient(
                self.convert_expr(frac.upper), self.convert_expr(frac.lower), result
            )
        return result

    def convert_mp(self, mp: Any) -> Any:
        if not (mp.DIV() or mp.CMD_DIV() or mp.COLON()):
            return super().convert_mp(mp)
        above, below = map(self.convert_mp, mp.mp() if hasattr(mp, "mp") else mp.mp_nofunc())
        if any(getattr(part, "is_Matrix", False) for part in (above, below)):
            raise UnreadableLatexError("a quotient of matrices")
        if all(getattr(part, "is_Integer", False) for part in (above, below)):
            result = sympy.Rational(above, below)
            self._note_quotient(above, below, result)
            return result
        inverse = sympy.Pow(below, -1, evaluate=False)
        return sympy.Mul(above, inverse, evaluate=False)

    def convert_postfix_list(self, arr: Any, i: int = 0) -> Any:
        # The grammar takes `(2)(3)` and `2 5` for mixed numbers: only `2\frac{1}{2}` is one.
        first = self.convert_postfix(arr[i])
        if i + 1 == len(arr) or not getattr(first, "is_Integer", False):
            return first if i + 1 == len(arr) else self._times_rest(first, arr, i)
        rest = self.convert_postfix_list(arr, i + 1)
        is_part = getattr(rest, "is_Rational", False) and 0 < rest < 1
        is_mixed = arr[i].getText().isdigit() and arr[i + 1].getText().startswith("\\frac")
        if is_part and is_mixed:
            return first + rest
        return self._product(first, rest)

    def _times_rest(self, first: Any, arr: Any, i: int) -> Any:
        if not isinstance(first, sympy.Expr | sympy.MatrixBase | sympy.MatrixExpr):
            raise UnreadableLatexError("a product of what has none")
        return self._product(first, self.convert_postfix_list(arr, i + 1))

    def _product(self, first: Any, rest: Any) -> Any:
        if any(getattr(part, "is_Matrix", False) for part in (first, rest)):
            return self.mat_mul_flat(first, rest)
        return self.mul_flat(first, rest)

    def _note_quotient(self, above: Any, below: Any, result: Any) -> None:
        reduced = int(below) > 0 and gcd(int(above), int(below)) == 1
        if not reduced or result.is_Integer:
            self.undone.add("fraction")

    def convert_binom(self, binom: Any) -> Any:
        upper, lower = self.convert_expr(binom.upper), self.convert_expr(binom.lower)
        return _bounded(sympy.binomial(upper, lower, evaluate=False))

    def handle_sum_or_prod(self, func: Any, name: str) -> Any:
        return sympy.UnevaluatedExpr(value_of_series(super().handle_sum_or_prod(func, name)))

    def handle_integral(self, func: Any) -> Any:
        return sympy.UnevaluatedExpr(value_of_series(super().handle_integral(func)))

    def handle_limit(self, func: Any) -> Any:
        raise UnreadableLatexError("a limit")

    def convert_interval(self, expr: Any) -> Any:
        try:
            return super().convert_interval(expr)
        except ValueError:  # complex ends
            return sympy.Tuple(*map(self.convert_expr, expr.expr()))


def _bounded(node: Any) -> Any:
    """Refuses powers and factorials too large to compute, the inner ones first."""
    if not isinstance(node, Expr) or node.free_symbols:
        return node
    if isinstance(node, factorial | binomial):
        argument = _bounded(node.args[0]).doit()
        if not (argument.is_Rational and abs(argument) <= _MAX_FACTORIAL):
            raise UnreadableLatexError("a factorial too large to compute")
    if node.is_Pow:
        base: Any = node.args[0].doit()
        exponent: Any = node.args[1].doit()
        size = exponent.evalf(10)
        if not size.is_number or base.is_zero or base in (1, -1):
            return node
        length: Any = log(Abs(base.evalf(10)), 10)
        digits = abs(size * length.evalf(10))
        if not digits <= MAX_DIGITS:
            raise UnreadableLatexError("a power too large to compute")
    return node
