"""Whether problem sets overlap, exactly or nearly, so that held-out problems are not trained on.

Two problems are the same if their texts are equal. They are near if their texts have the same words
and numbers, whatever their order, case, spacing and the way a number is written: `3 + 4` and
`4 + 3`, `1,000` and `1000`.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from astarpo.types import Problem, UserError

logger = logging.getLogger("astarpo")

# A number takes the sign before it, so that the terms of a sum are the same in any order.
_PARTS = re.compile(r"[-+\u2212]?\s*\d[\d,]*(?:\.\d+)?|[^\W\d_]+|[*/^=<>x÷]")

_COUNTED = "eordcgmu"
"""Letters that become no other by `casefold`, nor any other character one of them."""


def question(problem: Problem) -> str:
    """The text of a problem's messages."""
    return "\n\n".join(message["content"] for message in problem.prompt)


def near_question(problem: Problem) -> str:
    """What a problem asks, in a form that is equal for near problems."""
    return near_text(question(problem))


def near_text(text: str) -> str:
    """A text in a form that is equal for near texts."""
    parts = []
    for part in _PARTS.findall(text.casefold()):
        if part[-1].isdigit():
            digits = re.sub(r"[\s,]", "", part).replace("\u2212", "-")
            part = digits if digits[0] in "+-" else f"+{digits}"
        parts.append(part)
    return " ".join(sorted(parts))


def is_held_out(problem: Problem, share: float) -> bool:
    """Whether a problem is in the share of a set that is held out. Near problems go together."""
    digest = blake2b(near_question(problem).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") < share * 2**64


def without(problems: Iterable[Problem], held_out: Iterable[Problem]) -> list[Problem]:
    """The problems whose text is not also that of a held-out one."""
    asked = {question(problem) for problem in held_out}
    return [problem for problem in problems if question(problem) not in asked]


def refuse_overlap(
    problems: Sequence[Problem], held_out: Sequence[Problem], names: tuple[str, str]
) -> None:
    """Refuses held-out problems that are trained on, and warns of those that are near such.

    Args:
        problems: Those that are trained on.
        held_out: Those that must not be.
        names: The files of both, for messages.
    """
    # Of a million problems that are trained on, only those are kept that may be a held-out one.
    letters = {_letters(question(problem)) for problem in held_out}
    alike = [text for text in map(question, problems) if _letters(text) in letters]
    asked = set(alike)
    if shared := [problem for problem in held_out if question(problem) in asked]:
        raise UserError(
            f"{names[1]}: {len(shared)} of {len(held_out)} held-out problems, such as "
            f"{shared[0].id}, are trained on in {names[0]}; make training problems without them "
            f"(astarpo data --without {names[1]}), or give other held-out ones"
        )
    known = set(map(near_text, alike))
    if near := sum(near_question(problem) in known for problem in held_out):
        logger.warning(
            f"{names[1]}: {near} of {len(held_out)} held-out problems differ from one in "
            f"{names[0]} only in order, case, spacing or the way numbers are written"
        )


def _letters(text: str) -> tuple[int, ...]:
    """How often some letters occur, which near texts agree in and others hardly ever."""
    return tuple(text.count(letter) + text.count(letter.upper()) for letter in _COUNTED)
