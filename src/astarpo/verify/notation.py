r"""Ways to write the same LaTeX: style, spacing, units, Unicode, repeating decimals.

Text in, text out. Nothing is parsed here, and every pattern takes linear time.
"""

import re
from fractions import Fraction

_UNICODE = {
    **{"\u2212": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "π": r"\pi ", "√": r"\sqrt "},  # noqa: RUF001
    **{
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "\u222a": r"\cup ",
        "°": r"^\circ ",
    },
    **{"²": "^{2}", "³": "^{3}", "∈": r"\in "},
    **{"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}"},
    **{"¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}"},
    **{"⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}"},
    **{"⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}"},
}
_TRANSLATION = str.maketrans(_UNICODE)
# Control characters are spaces to LaTeX; to Python some of them end a line.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_STYLE = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|bf|bfseries|it|rm|sf|tt|large"
    r"|Large|huge)(?![A-Za-z])\s*|\\(?:text)?color\s*\{[^{}]*\}\s*"
)
_FRACTION = re.compile(r"\\(?:[dtc]|nice|s|x)frac(?![A-Za-z])")
_STYLED = re.compile(
    r"\\(?:mathbf|mathit|mathsf|boldsymbol|bm|textbf|textit)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:bar|overline|dot)\s*(?:\{(\d+)\}|(\d))")
_COMMA_IN_NUMBER = re.compile(r"(?<=\d)(?:,\\!\s*|\{,\}|\{,\\!\})(?=\d{3}(?!\d))")
_SPACED_NUMBER = re.compile(r"[-+]?\d{1,3}(?:(?:\\[,;: ]|~|\s|\{\s\})\d{3})+(?:\.\d+)?")
_NOT_IN_NUMBER = re.compile(r"\\[,;: ]|[~\s{}]")

# A unit in a text box after anything; in bare letters only after a space and a number.
_BOXED_UNIT = re.compile(
    r"(?<=[^\s\\])(?:\s|\\[,;:! ]|~)*\\(?:text|mbox|textrm|mathrm)\s*\{[^{}]*\}"
    r"(?:\s*\^\s*(?:\d|\{-?\d\}))?$"
)
_BARE_UNIT = re.compile(
    r"(?<=[\d}])(?:\s|\\[,; ]|~)+(?:cm|mm|km|ft|kg|lb|[A-Za-z]{3,}(?: [A-Za-z]+)*)"
    r"(?:\^(?:\d|\{\d\}))?$"
)
_SIGN_OF_UNIT = re.compile(r"\\?\$|\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree(?![A-Za-z])")
_PERCENT = re.compile(r"(?:\s|\\[,;:! ])*(?:\\?%|\\text\{\s*(?:percent|%)\s*\}|percent)$")
_MERIDIEM = re.compile(r"(?<![A-Za-z\\])([AaPp])\.?\s*[Mm](?![A-Za-z])\.?")
_BARE_FRACTION = re.compile(r"\\frac\s*(\\[A-Za-z]++|[0-9A-Za-z])\s*(\\[A-Za-z]++|[0-9A-Za-z])")
_TEXT = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{([^{}\\]*)\}")
_INVISIBLE = re.compile(r"\\[!,;: ]|~|\\q?quad(?![A-Za-z])|(?<![0-9,])\s+|\s+(?![0-9])")


class UnreadableLatexError(ValueError):
    """An answer is not LaTeX mathematics, or is of a kind that is refused."""


def plain(latex: str) -> str:
    r"""Returns an answer in the one way of writing it: no style, `\frac`, no full stop."""
    text = _CONTROL.sub(" ", latex).translate(_TRANSLATION).strip().removesuffix(".").strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text.strip("$")
    text = _STYLE.sub("", text).replace("{:}", ":")
    text = _STYLED.sub(r"\1", _FRACTION.sub(r"\\frac", text))
    text = _REPEATING.sub(_as_fraction, _COMMA_IN_NUMBER.sub("", text))
    text = _BARE_FRACTION.sub(r"\\frac{\1}{\2}", text).strip()
    if _SPACED_NUMBER.fullmatch(text):
        return _NOT_IN_NUMBER.sub("", text)
    while len(text) > 1 and text[0] == "{" and _closes_last(text):
        text = text[1:-1].strip()
    return text


def compact(text: str) -> str:
    """Returns a plain answer without spaces and boxes around words, for comparing as text.

    A space between digits stays, since it parts two numbers: also after a comma, `3, 125`.
    """
    return _TEXT.sub(lambda styled: styled[1].strip().removesuffix("."), _INVISIBLE.sub("", text))


def without_unit(text: str) -> str:
    r"""Removes `\$`, degrees, and a unit or other words after the value. Percent signs stay."""
    text = _SIGN_OF_UNIT.sub("", text).strip()
    if _PERCENT.search(text):
        return text
    value = _BARE_UNIT.sub("", _BOXED_UNIT.sub("", text)).strip()
    return text if _TEXT.fullmatch(value) else value


def split_percent(text: str) -> tuple[str, bool]:
    """Parts a percent sign at the end from the value."""
    value = _PERCENT.sub("", text)
    return value, value != text


def split_meridiem(text: str) -> tuple[str, str]:
    """Parts `a.m.` or `p.m.` from a time of day; returns the rest, and `a`, `p` or nothing."""
    found = _MERIDIEM.search(text)
    return (_MERIDIEM.sub("", text), found[1].lower()) if found else (text, "")


def words(text: str) -> str | None:
    """Returns an answer in words as one spelling; None where it is none, or has no text box."""
    return spelling(text) if _TEXT.search(text) else None


def spelling(text: str) -> str | None:
    """Returns words as one spelling, lists in order; None where there are other signs.

    One letter keeps its capital: `C` may be a choice, and `c` a variable.
    """
    unboxed = _TEXT.sub(r"\1", text)
    listed = re.sub(r"(?:,\s*)?(?<![A-Za-z])and(?![A-Za-z])", ",", unboxed)
    said = re.sub(r"[\s().\"'~]|\\[,;:! ]", "", listed)
    if not said.replace(",", "").isalpha():
        return None
    said = ",".join(sorted(said.split(",")))
    return said if len(said) == 1 else said.lower()


def _as_fraction(match: re.Match[str]) -> str:
    whole, start, repeated = match[1] or "0", match[2], match[3] or match[4]
    value = Fraction(int(whole + start + repeated) - int(whole + start))
    value /= 10 ** len(start) * (10 ** len(repeated) - 1)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _closes_last(text: str) -> bool:
    """Says whether the first brace closes with the last character."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.end() == len(text)
    return False
