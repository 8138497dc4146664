"""Words on the screen: the names that a mistyped one may stand for, and texts that fit on it."""

import difflib
import unicodedata
from collections.abc import Iterable

_SHOWN_CHARACTERS = 2000


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; did you mean lr?`, or nothing.

    Example:
        >>> did_you_mean("estimat", ["data", "estimate"])
        '; did you mean estimate?'
        >>> did_you_mean("frobnicate", ["data", "estimate"])
        ''
    """
    near = closest(word, known)
    return f"; did you mean {near}?" if near else ""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one is nearest to; None where none is near.

    Case does not count, nor whether words are joined by `-` or `_`.
    """
    by_spelling = {_spelling(name): name for name in known}
    found = difflib.get_close_matches(_spelling(word), by_spelling, n=1, cutoff=0.65)
    return by_spelling[found[0]] if found else None


def _spelling(word: str) -> str:
    return word.lower().replace("_", "-")


def shown(text: str, limit: int = _SHOWN_CHARACTERS) -> str:
    """A text as a terminal may show it: cut where it is long, without what would move the cursor.

    Args:
        text: Any text, such as a prompt of a file that came from somebody else.
        limit: The most characters; a note says how many more there were.
    """
    kept = printable(text[:limit])
    left = len(text) - limit
    return f"{kept} [... {left:,} more characters]" if left > 0 else kept


def printable(text: str, *, kept: str = "\n\t", instead: str = "\ufffd") -> str:
    r"""A text without what would move a cursor, or change how other text is shown.

    Args:
        text: Any text, such as a prompt of a file that came from somebody else.
        kept: Control characters that may stay.
        instead: What stands in the place of each of the others.

    Example:
        >>> printable("a\x1b[2J\nb", instead="?")
        'a?[2J\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) or c in kept else instead for c in text)


def _is_shown(character: str) -> bool:
    """Python calls no space printable but the one of ASCII."""
    return character.isprintable() or unicodedata.category(character) == "Zs"
