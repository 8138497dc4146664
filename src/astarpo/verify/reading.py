r"""LaTeX mathematics as a sympy tree, read by math-verify's grammar and left as it was written.

Nothing that a model wrote may run, and math-verify 0.9 makes code from text in three places:

- Its plain-expression path ends in sympy's `parse_expr`, an `eval`. It is never called: only
  LaTeX is parsed here.
- The LaTeX path reads every number by `sympy.Number(text)`, again `parse_expr`. `Reader` reads
  them without, and exactly: `0.1` is a tenth.
- Any text may be a symbol's name, and sympy writes names into source code that it compiles to
  take the value of an infinite sum: `\sum_{n=0}^\infty \frac{1+n\text{...}}{n!}` runs Python of the
  writer's choice. So sympy never gets to see a sum, product, integral or limit: `series.py`
  computes the finite and polynomial ones as they are read, and the others are unreadable.

The workers refuse to run any code made from text as well, so a fourth place would fail safely.

math-verify does some sums while it reads: a binomial, a fraction in lowest terms, a determinant.
`Reader` leaves them, or notes that they were left undone in the answer.
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from astarpo.verify.notation import UnreadableLatexError, plain

if TYPE_CHECKING:
    from latex2sympy2_extended import NormalizationConfig

_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?![\d,])")
_INDEX = re.compile(r"\\(?:sum|prod)_\{?\s*i")
_COMPUTED = re.compile(r"\\(?:det|operatorname|gcd|lcm|xrightarrow|Vert|\||begin\s*\{vmatrix\})")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text of mathematics says.

    Attributes:
        tree: A sympy object, not evaluated.
        undone: Kinds of work that the grammar did although the text had not.
    """

    tree: Any
    undone: frozenset[str]


def read(text: str) -> Reading:
    """Parses an answer in plain notation.

    Raises:
        UnreadableLatexError: It is not LaTeX mathematics, or holds a number too large to compute.
    """
    from latex2sympy2_extended import normalize_latex

    from astarpo.verify.grammar import Reader

    normal = plain(normalize_latex(text, _normalization()))
    if _THOUSANDS.fullmatch(normal.lstrip("-")):
        normal = normal.replace(",", "")
    normal = _ends_of_chain(normal)
    reader = Reader(config=_conversion())
    reader.has_indices = bool(_INDEX.search(normal))
    try:
        tree = reader.parse(normal)
    except (MemoryError, UnreadableLatexError):
        raise
    except Exception as error:  # of any type, on anything that is not its grammar
        raise UnreadableLatexError("not LaTeX mathematics") from error
    if isinstance(tree, list | bool | tuple):
        raise UnreadableLatexError("not an answer")
    undone = set(reader.undone)
    if _COMPUTED.search(normal):
        undone.add("computed while reading")
    return Reading(tree, frozenset(undone))


def _ends_of_chain(text: str) -> str:
    """Leaves of `x = 10/2 = 5` the first and the last part: what stands between is the way."""
    depth, equals = 0, []
    for sign in re.finditer(r"\\.|[{}]|(?<![<>!:])=", text):
        depth += {"{": 1, "}": -1}.get(sign[0], 0)
        if sign[0] == "=" and depth == 0:
            equals.append(sign.start())
    if len(equals) < 2 or set(text) & {",", ";", "&"}:
        return text
    return text[: equals[0]] + text[equals[-1] :]


@cache
def _normalization() -> "NormalizationConfig":
    from math_verify import LatexExtractionConfig

    config = LatexExtractionConfig().normalization_config
    return replace(config, boxed="none", units=False)


@cache
def _conversion() -> Any:
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    return ConversionConfig(lowercase_symbols=False)
