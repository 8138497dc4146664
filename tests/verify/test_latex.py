import subprocess
import sys
import time
from contextlib import suppress

import pytest

from astarpo.verify.boxes import last_boxed, last_boxes
from astarpo.verify.latex import equal
from astarpo.verify.notation import UnreadableLatexError


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{a {b} c}}", r"\text{a {b} c}"),
        (r"\boxed{\left\{1,2\right\}}", r"\left\{1,2\right\}"),
        (r"\boxed{\{1\}", None),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{x=\fbox{5}}", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{1} \boxed{ }", ""),
        (r"\boxed{1} and then \boxed{23", "1"),
        (r"\boxed{12", None),
        (r"set {1,2 \boxed{3}", "3"),
        (r"} \boxed{3} }", "3"),
        (r"\boxed 5", "5"),
        (r"is $\boxed 5$.", "5"),
        (r"\boxedx{5}", None),
        ("no box", None),
        ("", None),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 100_000,
        "{" * 700_000,
        r"\boxed{" + "{" * 10**5 + "}" * 10**5,
        "\\" * 700_000,
        "\\boxed" + " " * 700_000,
        "\\boxed " * 100_000,
    ],
)
def test_last_boxed_takes_linear_time(text):
    start = time.process_time()
    last_boxed(text)
    assert time.process_time() - start < 3


SAME = [
    ("5", "5"),
    ("5.", "5"),
    ("$5$", "5"),
    (r"\frac{1}{2}", "0.5"),
    ("0.5", r"\frac{1}{2}"),
    ("1/2", r"\frac{1}{2}"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\frac12", r"\frac{1}{2}"),
    (r"\frac{\pi}{4}", r"\frac \pi4"),
    (r"\frac{x}{2}", "x/2"),
    ("x/2", r"\frac{x}{2}"),
    (r"\$18", "18"),
    ("1,000", "1000"),
    ("1{,}000", "1000"),
    (r"1,\!000", "1000"),
    (r"\frac{12}{5525}", r"\frac{12}{5,\!525}"),
    (r"50\%", r"50\%"),
    ("50", r"50\%"),
    (r"5\text{ cm}", "5"),
    ("5", r"5\text{ cm}"),
    (r"90^\circ", "90"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    ("1+2x+x^2", "x^2+2x+1"),
    ("x=5", "5"),
    ("5", "x=5"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"),
    ("(1,2)", "(1, 2)"),
    (r"\{2,1\}", r"\{1,2\}"),
    ("2,1", "1,2"),
    (r"(-\infty,2]", r"(-\infty, 2]"),
    (r"[2,5)", r"\left[2,5\right)"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{bmatrix}0.5\\2\end{bmatrix}", r"\begin{pmatrix}\frac{1}{2}\\2\end{pmatrix}"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{(C)}", "(C)"),
    ("C", r"\text{(C)}"),
    ("2516_8", "2516_8"),
    (r"3 + 4i", "4i+3"),
    (r"\sum_{n=1}^5 n", r"\sum_{n=1}^5n"),
    # Style, spelling and typography.
    (r"\bf 5", "5"),
    (r"{\bf 5}", "5"),
    (r"\color{red}{5}", "5"),
    (r"\textcolor{red}{5}", "5"),
    (r"\nicefrac{1}{2}", r"\frac{1}{2}"),
    ("½", r"\frac12"),
    ("3½", r"\frac72"),
    (r"20 \%", "20"),
    (r"0.2", r"20\%"),
    ("1 000", "1000"),
    (r"1\,000", "1000"),
    (r"\text{Evelyn.}", "Evelyn"),
    (r"\text{evelyn}", r"\text{Evelyn}"),
    ("C, B", r"\text{B, C}"),
    ("11{:}30", "11:30"),
    (r"\text{4:30 PM}", r"\text{4:30 p.m.}"),
    (r"0.\bar{3}", r"0.\overline{3}"),
    ("1/3", r"0.\overline{3}"),
    (r"0.1\overline{6}", r"\frac{1}{6}"),
    ("12 cm", "12"),
    ("5 apples", "5"),
    # Sets of numbers, as relations and as intervals.
    (r"x \ge 0", r"[0,\infty)"),
    (r"0\le x<3", "[0,3)"),
    (r"x \neq 0", r"(-\infty,0)\cup(0,\infty)"),
    (r"-2\le x\le7", r"x \in [-2,7]"),
    (r"3-2\sqrt{2}, 3+2\sqrt{2}", r"3\pm2\sqrt{2}"),
    # Named values.
    ("f(2)=7", "7"),
    ("AB=5", "5"),
    (r"x=\frac{10}{2}=5", "5"),
    ("x=1, x=2", "1,2"),
    ("2x-y+3=0", "y=2x+3"),
    # A finished form need not be the gold's.
    ("10^{3}", "1000"),
    (r"1.5\times10^{3}", "1500"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\frac{x-5}{2}", r"\frac{x}{2}-\frac52"),
    (r"\frac{1}{5}\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1/5\\2/5\end{pmatrix}"),
    # Sums and integrals and their values.
    (r"\sum_{n=1}^{5} n = 15", "15"),
    ("15", r"\sum_{n=1}^{5} n"),
    (r"\frac13", r"\int_0^1 x^2 dx"),
]

DIFFERENT = [
    # What a tree does not hold, named: words, bases.
    (r"I = \text{June 21}", r"I = \text{June 20}"),
    ("I = 25_{7}", "I = 25_{6}"),
    # Equal near 0 alone.
    ("5x - |x - 5|", "6x - 5"),
    ("5", "6"),
    ("0.33", r"\frac{1}{3}"),
    ("(2,1)", "(1,2)"),
    ("[2,5]", "[2,5)"),
    (r"\{1,2,3\}", r"\{1,2\}"),
    ("3 4", "34"),
    ("x", "y"),
    (r"\sqrt{2}", "1.414"),
    ("-5", "5"),
    (r"\begin{pmatrix}1\\3\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("12345678901234567890", "12345678901234567891"),
    # Formulas of a question whose answer the gold is.
    (r"\sqrt[3]{13}^6", "169"),
    ("3+4", "7"),
    ("(2)(3)", "6"),
    ("(2)(3)", "5"),
    ("2^{10}", "1024"),
    ("5!", "120"),
    (r"\binom{5}{2}", "10"),
    (r"\log_{2}{8}", "3"),
    (r"\cos \frac{\pi}{3}", r"\frac{1}{2}"),
    (r"\frac{2}{4}", r"\frac12"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\sqrt{\frac23}", r"\frac{\sqrt6}{3}"),
    (r"\sum_{n=1}^{5} n", "15"),
    (r"\begin{vmatrix} 0 & 1 \\ 3 & 5 \end{vmatrix}", "-3"),
    (
        r"\begin{pmatrix}1\\2\end{pmatrix}+\begin{pmatrix}1\\1\end{pmatrix}",
        r"\begin{pmatrix}2\\3\end{pmatrix}",
    ),
    ("(x+1)(x+2)", "x^2+3x+2"),
    ("x^2+3x+2", "(x+1)(x+2)"),
    ("3x+2-5x+18", "-2x+20"),
    (r"\sqrt{60x}\cdot\sqrt{12x}\cdot\sqrt{63x}", r"36x\sqrt{35x}"),
    ("x^2-2x-3=0", "0"),
    ("3x-4y=7", "7"),
    ("ab=8", "8"),
    # Numbers are exact, however they are spelled.
    (r"1.325\times10^{-27}", r"2.88\times10^{-19}"),
    ("e^{-50}", "e^{-60}"),
    ("0.333333", "1/3"),
    ("0.333333", r"\frac13"),
    ("1.4142135623730950488016887242096980785696718753769", r"\sqrt{2}"),
    ("3125", "3, 125"),
    # Equations do not fold to a truth value, and letters keep their case.
    ("I=7", "I=8"),
    ("I=V/R", "I=R/V"),
    ("N=n+1", "N=n"),
    ("x=5", "y=5"),
    ("c", r"\text{(C)}"),
    # What looks like a unit or a base may be none.
    ("2d", "2"),
    ("5s", "5t"),
    ("2516_7", "2516_8"),
    (r"9\text{ a.m.}", r"9\text{ p.m.}"),
    (r"0.2\%", "20"),
    ("|x|", "x"),
    ("x>0", r"[0,\infty)"),
]


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_equal_answers(answer, gold):
    assert equal(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answers(answer, gold):
    """Unreadable is as good: both earn nothing."""
    with suppress(UnreadableLatexError):
        assert not equal(answer, gold)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        (r"$\boxed{1}$ and $\boxed{-2}$", ["1", "-2"]),
        (r"$x=\boxed{1}$ or $x = \boxed{2}$.", ["1", "2"]),
        (r"\boxed{1}, \boxed{2}, \text{ and } \boxed{3}", ["1", "2", "3"]),
        (r"\boxed{1} \boxed{2}", ["1", "2"]),
        (r"\boxed{3}. So \boxed{4} and \boxed{5}", ["4", "5"]),
        ("\\boxed{3}\n\n\\boxed{4}", ["4"]),
        (r"\boxed{3} = \boxed{4}", ["4"]),
        (r"\boxed{3}, no: \boxed{4}", ["4"]),
        (r"\boxed{1} and \boxed{}", [""]),
        ("none", []),
    ],
)
def test_neighbouring_boxes_of_a_sentence_are_one_answer(text, boxes):
    assert last_boxes(text) == boxes


@pytest.mark.parametrize(
    "answer",
    [
        *(r"9^{9^{9^9}}", r"10^{10^{10}}", "99!!!!", r"\binom{10^7}{5}"),
        *(r"\prod_{n=1}^{1000} n^n", r"\sum_{n=1}^{1000} \frac{1}{n^{50}}"),
    ],
)
def test_a_number_too_large_to_compute_is_unreadable_at_once(answer):
    start = time.process_time()
    with pytest.raises(UnreadableLatexError, match="too large"):
        equal(answer, "7")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "answer",
    [
        r"\frac{",
        "(((",
        "5" * 3000,
        r"\sum_{n=0}^{\infty} \frac{1}{2^n}",
        r"\s\!um_{n=0}^{\infty} n",
        r"\prod_{n=1}^{\infty} n",
        r"(0, \sum_{n=0}^{\infty} \frac{1}{2^n})",
        r"\sum_{n=1}^{900} n^{n^{n}}",
        r"\lim_{x \to 0} x",
        r"\int_0^1 \sin x dx",
        "\x00",
        "\ud800",
    ],
)
def test_unreadable_answers(answer):
    with pytest.raises(UnreadableLatexError):
        equal(answer, "7")


def test_a_symbols_name_is_never_run(tmp_path):
    """The name of a symbol reaches sympy's code generator through the value of an infinite sum."""
    code = "[exit.__class__[7]for[exit.__class__.__class_getitem__]in[[open.__call__]]][0]"
    for command in (r"\sum", r"\s\!um", r"\s$um"):
        answer = command + r"_{n=0}^{\infty} \frac{1+n\text{" + code + "}}{n!}+1"
        with pytest.raises(UnreadableLatexError):
            equal(answer, r"\sqrt{2}")
    assert not equal(r"\text{" + code + "}+1", r"\sqrt{2}")


def test_importing_it_is_light():
    check = (
        "import sys, astarpo.verify.latex, astarpo.tasks; "
        "print(sorted({'sympy', 'math_verify', 'torch', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
