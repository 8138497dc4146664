"""Values of finite sums and products and of integrals of polynomials, by arithmetic alone."""

from typing import Any

from astarpo.verify.notation import UnreadableLatexError

MAX_TERMS = 1000
MAX_BITS = 10_000
"""A sum or product with a longer numerator or denominator is not computed."""

_MAX_INDEX = 10_000
_MAX_EXPONENT = 100


def value_of_series(node: Any) -> Any:
    """Returns the value of a sum or product of so many terms, or an integral of a polynomial.

    Args:
        node: A sympy `Sum`, `Product` or `Integral`, none of whose own methods is called.

    Raises:
        UnreadableLatexError: It is of a kind that only sympy could compute.
    """
    from sympy import Add, Integral, Mul, Sum

    term, *bounds = node.args
    is_definite = len(bounds) == 1 and len(bounds[0]) == 3 and bounds[0][0].is_Symbol
    if not is_definite or not all(map(_is_elementary, (term, *bounds[0][1:]))):
        raise UnreadableLatexError("a sum or an integral that is not computed")
    variable, first, last = bounds[0][0], bounds[0][1].doit(), bounds[0][2].doit()
    if isinstance(node, Integral):
        return _integral(term.doit(), variable, first, last)
    if not all(bound.is_Integer and abs(bound) <= _MAX_INDEX for bound in (first, last)):
        raise UnreadableLatexError("a sum that does not run between numbers")
    if not 0 <= last - first < MAX_TERMS:
        raise UnreadableLatexError(f"a sum of no terms, or of more than {MAX_TERMS}")
    join: Any = Add if isinstance(node, Sum) else Mul
    number = join.identity
    others: list[Any] = []
    for index in range(int(first), int(last) + 1):
        value = term.subs(variable, index).doit()
        if not value.is_Rational:
            others.append(value)
            continue
        number = join(number, value)
        if number.is_Rational and max(number.p.bit_length(), number.q.bit_length()) > MAX_BITS:
            raise UnreadableLatexError("a sum too large to compute")
    return join(number, *others)


def _is_elementary(term: Any) -> bool:
    """Sums, products and modest powers of numbers and symbols, and nothing else."""
    if term.is_Symbol or (term.is_Number and term.is_finite):
        return True
    if term.is_Pow:
        return _is_elementary(term.base) and _is_modest(term.exp)
    return (term.is_Add or term.is_Mul) and all(map(_is_elementary, term.args))


def _is_modest(exponent: Any) -> bool:
    """A small whole number, an index, or one plus or times the other."""
    if exponent.is_Add or exponent.is_Mul:
        return (
            len(exponent.args) == 2
            and all(
                part.is_Symbol or (part.is_Integer and abs(part) <= _MAX_EXPONENT)
                for part in exponent.args
            )
            and not all(part.is_Symbol for part in exponent.args)
        )
    return exponent.is_Symbol or bool(exponent.is_Integer and abs(exponent) <= _MAX_EXPONENT)


def _integral(term: Any, variable: Any, first: Any, last: Any) -> Any:
    polynomial = term.as_poly(variable)
    if polynomial is None:
        raise UnreadableLatexError("an integral that is not computed")
    primitive = polynomial.integrate().as_expr()
    return primitive.subs(variable, last) - primitive.subs(variable, first)
