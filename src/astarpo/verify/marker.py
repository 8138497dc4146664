"""The answer after GSM8K's `####`."""

import re

MARKER = "####"

_WRAPPINGS = [("**", "**"), ("*", "*"), ("`", "`"), ("$$", "$$"), ("$", "$")]
_WRAPPINGS += [(r"\(", r"\)"), (r"\[", r"\]")]
_BOX = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*+)\}")


def marked_answer(response: str) -> str | None:
    r"""Returns the first line with text after the last `####`, without what only marks it up.

    That is: spaces, a full stop, and around the whole line `**`, `*`, backticks, dollar signs,
    `\( \)`, `\[ \]` and `\boxed{}`.

    Returns:
        None where there is no `####` or nothing follows it.
    """
    _, marker, rest = response.rpartition(MARKER)
    if not marker:
        return None
    return _unwrap(rest.lstrip().partition("\n")[0]) or None


def _unwrap(line: str) -> str:
    """Removes each kind of wrapping at most once: none may be left inside."""
    wrapped, line = None, line.strip()
    while line != wrapped:
        wrapped, line = line, line.rstrip(". ")
        for opening, closing in _WRAPPINGS:
            if len(line) > len(opening + closing) and line.startswith(opening):
                inner = line.removeprefix(opening).removesuffix(closing)
                if line.endswith(closing) and opening not in inner and closing not in inner:
                    line = inner.strip()
        if box := _BOX.fullmatch(line):
            line = box[1].strip()
    return line
