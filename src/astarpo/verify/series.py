"""Values of finite sums and products and of integrals of polynomials, by arithmetic alone."""

from typing import Any

from astarpo.verify.reading import UnreadableLatexError

MAX_TERMS = 1000


def value_of_series(node: Any) -> Any:
    """Returns the value of a sum or product of so many terms, or an integral of a polynomial.

    Raises:
        UnreadableLatexError: It is another kind, which sympy could only compute by code that it
            makes from the symbols' names.
    """
    from sympy import Add, Integral, Mul, Product, Sum

    if not isinstance(node, Sum | Product | Integral) or len(node.args) != 2:
        raise UnreadableLatexError("a limit, a derivative or a multiple sum or integral")
    term, bounds = node.args
    if len(bounds) != 3 or not bounds[0].is_Symbol or not _is_elementary(term):
        raise UnreadableLatexError("a sum or an integral that is not computed")
    variable, first, last = bounds[0], bounds[1].doit(), bounds[2].doit()
    if isinstance(node, Integral):
        return _integral(term.doit(), variable, first, last)
    if not (first.is_Integer and last.is_Integer and 0 <= last - first < MAX_TERMS):
        raise UnreadableLatexError("a sum that is not computed")
    values = [term.subs(variable, index).doit() for index in range(int(first), int(last) + 1)]
    return Add(*values) if isinstance(node, Sum) else Mul(*values)


def _is_elementary(term: Any) -> bool:
    """Sums, products and small whole powers of numbers and symbols, and nothing else."""
    if term.is_Symbol or term.is_Number:
        return True
    if term.is_Pow and term.exp.is_Integer and abs(term.exp) > 100:
        return False
    return (term.is_Add or term.is_Mul or term.is_Pow) and all(map(_is_elementary, term.args))


def _integral(term: Any, variable: Any, first: Any, last: Any) -> Any:
    polynomial = term.as_poly(variable)
    if polynomial is None:
        raise UnreadableLatexError("an integral that is not computed")
    primitive = polynomial.integrate().as_expr()
    return primitive.subs(variable, last) - primitive.subs(variable, first)
