r"""The answer of a response, and whether it equals the reference answer. No text is run.

marker.py       the answer after `####`
boxes.py        the answers in `\boxed{}`
numbers.py      numbers in text, exactly
expressions.py  integer arithmetic, exactly
latex.py        whether two LaTeX answers are equal, by means of
notation.py     one spelling for what can be written in several ways
reading.py      LaTeX to a tree of sympy, safely: grammar.py converts, series.py sums and integrates
finished.py     whether an answer leaves work undone that the reference does not
sameness.py     whether two trees are the same mathematics
"""
