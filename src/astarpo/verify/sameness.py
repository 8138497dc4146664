"""Equality of two readings: by structure where there is one, of expressions as functions.

Numbers are exact, so that closeness never depends on how they are spelled.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any

from astarpo.verify.finished import Simplest, simplest
from astarpo.verify.notation import UnreadableLatexError
from astarpo.verify.reading import Reading

_DIGITS = 40
_AGREEING = 25
# A longer decimal fraction beside a root is an approximation, however close.
_MAX_DENOMINATOR = 10**15
# Values at which expressions are compared. No formula singles any of them out; the last two pairs
# lie far from 0, where `|x - 5|` has another sign.
_POINTS = (
    *(("1.3729", "2.1873"), ("-0.8391", "0.4127"), ("0.6131", "-1.7717")),
    *(("1017.3921", "229.0713"), ("-1123.1179", "-311.5527")),
)


def same(answer: Reading, gold: Reading) -> bool:
    """Says whether an answer is the gold, in a form as finished as the gold's."""
    if not answer.undone <= gold.undone:
        return False
    return _same(answer.tree, gold.tree)


def _same(answer: Any, gold: Any) -> bool:
    from sympy import MatrixBase, Set, Tuple

    answer, gold = _value_of_name(answer, gold), _value_of_name(gold, answer)
    if _is_relation(answer) and _is_relation(gold):
        return _same_relation(answer, gold)
    if isinstance(gold, Set) and _is_relation(answer):
        answer = _solutions(answer)
    elif isinstance(answer, Set) and _is_relation(gold):
        gold = _solutions(gold)
    if _is_relation(answer) or _is_relation(gold) or answer is None or gold is None:
        return False
    if isinstance(answer, Set | Tuple) or isinstance(gold, Set | Tuple):
        return _same_collection(answer, gold)
    if _is_matrix(answer) or _is_matrix(gold):
        answer, gold = _as_matrix(answer), _as_matrix(gold)
        if not isinstance(answer, MatrixBase) or not isinstance(gold, MatrixBase):
            return False
        return answer.shape == gold.shape and all(map(_same, answer.flat(), gold.flat()))
    return _same_expression(answer, gold)


# Relations


def _chain(node: Any) -> list[Any]:
    """The relations of `a < b < c` in order, or of a single one."""
    return list(getattr(node, "_unsorted_args", [node]))


def _is_relation(node: Any) -> bool:
    from sympy.core.relational import Relational
    from sympy.logic.boolalg import And

    return isinstance(node, Relational | And)


def _is_equation(node: Any) -> bool:
    from sympy import Eq

    return _is_relation(node) and all(isinstance(link, Eq) for link in _chain(node))


def _value_of_name(node: Any, other: Any) -> Any:
    """Takes the value of `x = 5`, or of `x = 10/2 = 5`, unless the other side is an equation."""
    if not _is_equation(node) or _is_equation(other):
        return node
    chain = _chain(node)
    if _is_name(chain[0].lhs, chain[-1].rhs):
        return chain[-1].rhs
    return node


def _is_name(node: Any, value: Any) -> bool:
    """`x`, `a_1`, the segment `AB`, and `f(2)`, or `f(x)` where the value is of x."""
    from sympy import UnevaluatedExpr
    from sympy.core.function import AppliedUndef

    if node.is_Symbol:
        return True
    if isinstance(node, AppliedUndef):
        return node.free_symbols <= value.free_symbols and all(
            part.is_Atom or part.is_Rational for part in node.args
        )
    if isinstance(node, UnevaluatedExpr):
        return True  # a sum, a product or an integral
    return node.is_Mul and all(part.is_Symbol and part.name.isupper() for part in node.args)


def _same_relation(answer: Any, gold: Any) -> bool:
    links, gold_links = _chain(answer), _chain(gold)
    if len(links) != len(gold_links):
        return False
    if len(links) > 1:
        return all(map(_same_link, links, gold_links)) or all(
            map(_same_link, links[::-1], gold_links)
        )
    if _same_link(links[0], gold_links[0]):
        return True
    sets = _solutions(answer), _solutions(gold)
    one_name = answer.free_symbols == gold.free_symbols
    return None not in sets and one_name and _same_collection(*sets)


def _same_link(answer: Any, gold: Any) -> bool:
    """The same relation, perhaps turned round or multiplied by a number."""
    from sympy import Eq, Expr

    if not all(isinstance(s, Expr) for s in (*answer.args, *gold.args)):
        return type(answer) is type(gold) and all(map(_same, answer.args, gold.args))
    if type(answer) is not type(gold):
        answer = answer.reversed
    if type(answer) is not type(gold):
        return False
    sides = [simplest(side).value for side in (*answer.args, *gold.args)]
    if all(_equal(*pair) for pair in ((sides[0], sides[2]), (sides[1], sides[3]))):
        return True
    difference, gold_difference = sides[0] - sides[1], sides[2] - sides[3]
    if difference.free_symbols != gold_difference.free_symbols or not difference.free_symbols:
        return False
    ratio = (difference / gold_difference).cancel()
    if not ratio.is_number or not ratio.is_finite or ratio == 0:
        return False
    return isinstance(gold, Eq) or bool(ratio > 0)


def _solutions(node: Any) -> Any | None:
    """The set of a single name's values between numbers: `x > 2`, `0 <= x < 3`, `x != 1`."""
    from sympy import Interval, Ne, Reals, oo
    from sympy.core.relational import GreaterThan, StrictGreaterThan, StrictLessThan

    found = Reals
    for link in _chain(node):
        left, right = link.args
        if right.is_Symbol and not left.free_symbols:
            link = link.reversed
            left, right = link.args
        if not left.is_Symbol or right.free_symbols or left not in node.free_symbols:
            return None
        bound = simplest(right).value
        if not bound.is_real:
            return None
        if isinstance(link, Ne):
            found = found - Interval(bound, bound)
        elif isinstance(link, GreaterThan | StrictGreaterThan):
            found = found & Interval(bound, oo, left_open=isinstance(link, StrictGreaterThan))
        elif link.func.__name__ in ("LessThan", "StrictLessThan"):
            found = found & Interval(-oo, bound, right_open=isinstance(link, StrictLessThan))
        else:
            return None
    return found if len(node.free_symbols) == 1 else None


# Sets, tuples, matrices


def _same_collection(answer: Any, gold: Any) -> bool:
    from sympy import FiniteSet, Interval, Tuple, Union

    if isinstance(gold, Interval) and isinstance(answer, Interval):
        return (
            (answer.left_open, answer.right_open) == (gold.left_open, gold.right_open)
            and _same(answer.start, gold.start)
            and _same(answer.end, gold.end)
        )
    if isinstance(gold, Union) and isinstance(answer, Union):
        return _same_elements(list(answer.args), list(gold.args)) or _same_set(answer, gold)
    ordered, gold_ordered = _in_order(answer), _in_order(gold)
    if ordered is None or gold_ordered is None:
        return _same_set(answer, gold)
    if isinstance(gold, FiniteSet) and isinstance(answer, FiniteSet):
        return _same_elements(ordered, gold_ordered)
    if isinstance(gold, FiniteSet | Tuple | Interval) and isinstance(
        answer, FiniteSet | Tuple | Interval
    ):
        return len(ordered) == len(gold_ordered) and all(map(_same, ordered, gold_ordered))
    return _same_elements(ordered, gold_ordered)


def _in_order(node: Any) -> list[Any] | None:
    """Elements as they were written. `(1,2)` may be a point as well as an interval."""
    from sympy import FiniteSet, Interval, Set, Tuple

    if isinstance(node, Interval):
        return [node.start, node.end] if node.left_open and node.right_open else None
    if isinstance(node, FiniteSet):
        return list(getattr(node, "_unsorted_args", node.args))
    if isinstance(node, Tuple):
        return list(node.args)
    return None if isinstance(node, Set) else [node]


def _same_elements(answer: list[Any], gold: list[Any]) -> bool:
    """As sets: each of one is in the other."""
    return all(any(_same(a, g) for g in gold) for a in answer) and all(
        any(_same(a, g) for a in answer) for g in gold
    )


def _same_set(answer: Any, gold: Any) -> bool:
    from sympy import Set

    if not isinstance(answer, Set) or not isinstance(gold, Set):
        return False
    answer, gold = answer.doit(), gold.doit()
    return answer == gold or answer.symmetric_difference(gold).is_empty is True


def _is_matrix(node: Any) -> bool:
    from sympy import MatrixBase, MatrixExpr

    return isinstance(node, MatrixBase | MatrixExpr)


def _as_matrix(node: Any) -> Any | None:
    """A matrix, or a number times a matrix; no other product and no sum, which is work left."""
    from sympy import MatMul, MatrixBase

    if isinstance(node, MatrixBase):
        return node
    if not isinstance(node, MatMul):
        return None
    matrices = [part for part in node.args if isinstance(part, MatrixBase)]
    scalars = [part for part in node.args if not _is_matrix(part)]
    if len(matrices) != 1 or len(matrices) + len(scalars) != len(node.args):
        return None
    factor = simplest(scalars[0]).value if len(scalars) == 1 else 1
    return matrices[0] * factor if len(scalars) <= 1 else None


# Expressions

_simplest_of_gold = lru_cache(maxsize=256)(simplest)


def _same_expression(answer: Any, gold: Any) -> bool:
    finished_gold: Simplest = _simplest_of_gold(gold)
    finished = simplest(answer)
    return finished.is_finished_as(finished_gold) and _equal(finished.value, finished_gold.value)


def _equal(answer: Any, gold: Any) -> bool:
    """Whether two evaluated expressions are the same function of the same symbols."""
    if answer == gold:
        return True
    if answer.free_symbols != gold.free_symbols:
        return False
    rationals = [value for value in (answer, gold) if value.is_Rational]
    if len(rationals) == 2 or any(value.q > _MAX_DENOMINATOR for value in rationals):
        return False
    if not gold.free_symbols:
        return _agree(answer, gold)
    return _same_function(answer, gold)


def _same_function(answer: Any, gold: Any) -> bool:
    from sympy import Rational
    from sympy.core.function import AppliedUndef

    names = sorted(gold.free_symbols, key=str)
    # The outer one first: what `f(f(x))` is does not depend on what `f(x)` is.
    unknown = answer.atoms(AppliedUndef) | gold.atoms(AppliedUndef)
    unknown = sorted(unknown, key=lambda part: (-part.count_ops(), str(part)))
    for start, step in ((Fraction(start), Fraction(step)) for start, step in _POINTS):
        values = {
            name: Rational(start + step * (index + 1) / 3)
            for index, name in enumerate([*unknown, *names])
        }
        pairs = list(values.items())
        if not _agree(answer.subs(pairs), gold.subs(pairs)):
            return False
    return True


def _agree(answer: Any, gold: Any) -> bool:
    """Whether two numbers agree in far more digits than chance would make them."""
    from sympy import nan, zoo

    first, second = answer.evalf(_DIGITS), gold.evalf(_DIGITS)
    if first in (nan, zoo) or second in (nan, zoo):
        return False
    if not (first.is_finite and second.is_finite):
        return bool(first == second)
    scale = max(abs(first), abs(second))
    if not scale.is_number:
        raise UnreadableLatexError("an expression without a value")
    return scale == 0 or bool(abs(first - second) < scale * 10**-_AGREEING)
