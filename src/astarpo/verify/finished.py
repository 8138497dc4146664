r"""Whether an answer is finished: what work it leaves to whoever reads it.

Boxing a formula of the question is no answer, however true it is. The prompt is not at hand when
an answer is judged, but the gold shows what was asked for: an answer may leave undone what its gold
leaves undone, and nothing else. `2^{10}` is no answer where the gold is `1024`, and one where it is
`2^{10}`; `\sqrt{12}` is none where the gold is `2\sqrt{3}`.

`simplest` takes a tree as it was written, evaluates it from the leaves up by sympy's automatic
evaluation, and notes each place where that made it shorter.
"""

from dataclasses import dataclass, field
from math import gcd
from typing import Any

from astarpo.verify.notation import UnreadableLatexError


@dataclass(slots=True)
class Simplest:
    """An expression, evaluated.

    Attributes:
        value: The evaluated sympy expression.
        undone: Kinds of work that the text had left.
        sums: How many sums it is written with.
        factors: How many factors with variables it is a product of.
    """

    value: Any = None
    undone: set[str] = field(default_factory=set)
    sums: int = 0
    factors: int = 1

    def is_finished_as(self, gold: "Simplest") -> bool:
        r"""Says whether this leaves no more work than the gold does.

        A polynomial is factored where the gold is, and expanded where the gold is. Other formulas
        have no one form: `1 + \frac{1}{x}` and `\frac{x+1}{x}` are both finished.
        """
        if not self.undone <= gold.undone:
            return False
        if self.value.free_symbols and not self.value.is_polynomial():
            return self.sums <= (gold.sums and gold.sums + 1)
        if (self.factors > 1) != (gold.factors > 1):
            return False
        return self.sums <= gold.sums and self.factors >= gold.factors


def simplest(tree: Any) -> Simplest:
    """Evaluates an expression as it was written.

    Raises:
        UnreadableLatexError: It holds what cannot be computed safely.
    """
    result = Simplest()
    result.value = _evaluate(tree, result)
    if result.sums and result.value.free_symbols:
        result.factors = _num_factors(tree)
    return result


def _evaluate(node: Any, seen: Simplest) -> Any:
    from sympy import Add, Derivative, Mul, Pow, UnevaluatedExpr

    if not node.args:
        return node
    if isinstance(node, UnevaluatedExpr):
        seen.undone.add("unevaluated")
        return _evaluate(node.args[0], seen)
    if isinstance(node, Derivative):
        raise UnreadableLatexError("a derivative")
    parts = [_evaluate(part, seen) for part in node.args]
    value = node.func(*parts)
    if isinstance(node, Add):
        seen.sums += 1
        if len(Add.make_args(value)) < sum(len(Add.make_args(part)) for part in parts):
            seen.undone.add("sum")
    elif isinstance(node, Mul):
        _look_at_product(node, parts, value, seen)
    elif isinstance(node, Pow):
        _look_at_power(node, parts, value, seen)
    elif not value.free_symbols or value.is_number:
        seen.undone.add(type(node).__name__)
    return value


def _look_at_product(node: Any, parts: list[Any], value: Any, seen: Simplest) -> None:
    from sympy import Mul

    is_scientific = len(node.args) == 2 and any(map(_is_power_of_ten, node.args))
    if is_scientific and all(part.is_Rational for part in parts):
        return  # 1.5 \cdot 10^{3}
    factors: list[Any] = [factor for part in parts for factor in Mul.make_args(part)]
    numbers = [factor for factor in factors if factor.is_Rational and abs(factor) != 1]
    others = [factor for factor in factors if not factor.is_Rational]
    left = [factor for factor in Mul.make_args(value) if not factor.is_Rational]
    is_quotient = len(numbers) == 2 and others and _in_lowest_terms(*numbers)
    if len(numbers) > 1 and not is_quotient:
        seen.undone.add("product")
    # Powers of one base, roots of numbers: what sympy puts together by itself.
    if len(left) < len(others):
        seen.undone.add("product")
    if sum(map(_is_root, _flat_factors(node))) > 1:
        seen.undone.add("product of roots")
    is_multiple = len(others) == 1 and others[0].is_Add and numbers and value.free_symbols
    if is_multiple and all(term.as_coeff_Mul()[0].is_Integer for term in value.args):
        seen.undone.add("multiple of a sum")


def _in_lowest_terms(first: Any, second: Any) -> bool:
    r"""Whether two numbers are `a` and `1/b` of a fraction such as `\frac{a\sqrt{2}}{b}`."""
    whole, part = (first, second) if first.is_Integer else (second, first)
    return whole.is_Integer and abs(part.p) == 1 and gcd(int(whole), int(part.q)) == 1


def _flat_factors(node: Any) -> list[Any]:
    return [part for arg in node.args for part in (_flat_factors(arg) if arg.is_Mul else [arg])]


def _is_root(node: Any) -> bool:
    return node.is_Pow and node.exp.is_Rational and not node.exp.is_Integer


def _is_power_of_ten(node: Any) -> bool:
    return node.is_Pow and node.base == 10 and node.exp.is_Integer


def _look_at_power(node: Any, parts: list[Any], value: Any, seen: Simplest) -> None:
    base, exponent = parts
    if exponent == -1:
        if base.is_Rational and not base.is_Integer:
            seen.undone.add("fraction")
    elif base.is_Rational and exponent.is_Integer:
        if not _is_power_of_ten(node):
            seen.undone.add("power")
    elif base.is_Rational and exponent.is_Rational:
        if not (base.is_Integer and value.is_Pow and value.base.is_Integer):
            seen.undone.add("root")
    elif not value.free_symbols:
        if not base.is_Atom:
            seen.undone.add("power" if exponent.is_Integer else "root of a sum")
        elif value.is_Rational or base.is_imaginary:
            seen.undone.add("power")
    elif exponent.is_Integer and (base.is_Mul or base.is_Pow):
        seen.undone.add("power")


def _num_factors(tree: Any) -> int:
    """Factors with variables of a product, powers counted as often as they say; 1 of a sum."""
    factors = [p for p in (_flat_factors(tree) if tree.is_Mul else [tree]) if p.free_symbols]
    is_power = [part.is_Pow and part.base.is_Add and part.exp.is_Integer for part in factors]
    times = [
        max(int(part.exp), 0) if power else 1 for part, power in zip(factors, is_power, strict=True)
    ]
    return max(sum(times), 1) if any(is_power) or any(part.is_Add for part in factors) else 1
