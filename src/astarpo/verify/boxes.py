r"""The answer that a LaTeX text states in `\boxed{...}`, found in linear time."""

import re
from collections import deque

_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(\{)?|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)[ \t]+([^\s{}$\\][^\s{}$]*)")
_MAX_JOINT_CHARS = 60
# What may stand between two boxes of one answer: `$, and $x =`, but no end of a sentence.
_JOINT = re.compile(
    r"(?:[\s$,;&]|\\[,;:! ()\[\]]|\\q?quad(?![a-z])"
    r"|\\text(?:rm)?\{\s*,?\s*(?:and|or)\s*\}|(?:and|or)(?![A-Za-z]))*"
    r"(?:[A-Za-z](?:_\{?\w+\}?)?\s*=\s*)?"
)
_BLANK_LINE = re.compile(r"\n\s*\n")


def last_boxed(text: str) -> str | None:
    r"""Returns what stands in the last `\boxed{...}` or `\fbox{...}` whose braces balance.

    A box cut off before its closing brace does not count. `\boxed 5`, without braces, counts where
    the text has no box with them.

    Returns:
        The content, stripped; empty for an empty box; None where there is no box.
    """
    boxes = last_boxes(text)
    return boxes[-1] if boxes else None


def last_boxes(text: str) -> list[str]:
    r"""Returns the last box and the boxes right before it in the same sentence, in order.

    `$\boxed{1}$ and $\boxed{-2}$` is one answer of two values. An empty box counts for itself.

    Returns:
        Their contents as `last_boxed` has them; empty where there is no box.
    """
    spans = _innermost_boxes(text)
    if not spans:
        bare = deque(_BARE_BOX.finditer(text), maxlen=1)
        return [bare[0][1].rstrip(".,;")] if bare else []
    contents = [_content(text, spans[-1])]
    for (_, _, end), (start, _, _) in zip(spans[-2::-1], spans[:0:-1], strict=False):
        between = text[end:start] if start - end <= _MAX_JOINT_CHARS else "."
        if _JOINT.fullmatch(between) is None or _BLANK_LINE.search(between):
            break
        contents.append(_content(text, spans[-1 - len(contents)]))
    return contents[::-1] if all(contents) else contents[:1]


def _content(text: str, span: tuple[int, int, int]) -> str:
    return text[span[1] : span[2] - 1].strip()


def _innermost_boxes(text: str) -> list[tuple[int, int, int]]:
    """Where boxes with balanced braces begin, where their content begins, and where they end."""
    opened: list[tuple[int, int] | None] = []
    boxes: list[tuple[int, int, int]] = []
    for match in _BOX_OR_BRACE.finditer(text):
        if match[1] or match[0] == "{":
            opened.append(match.span() if match[1] else None)
        elif match[0] == "}" and opened:
            opening = opened.pop()
            # Of nested boxes the inner one counts: it closes first and opens last.
            if opening is not None and (not boxes or opening[0] > boxes[-1][0]):
                boxes.append((*opening, match.end()))
    return boxes
