"""The prompts that a verb starts from: short enough for the model, rendered when they are used."""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astarpo.models.vocabulary import PromptFormat, Vocabulary
from astarpo.types import Problem, Prompt, UserError, taken

_AT_A_TIME = 1024

logger = logging.getLogger("astarpo")


@dataclass(frozen=True, eq=False)
class Prompts(Sequence[Prompt]):
    """Prompts of which all that is kept is how long they are: one is rendered when asked for.

    A slice is one too.

    Attributes:
        problems: [P] what is asked.
        vocabulary: What renders them.
        prompt_format: See `Vocabulary.render`.
        lengths_P: [P] tokens of each.
        values_P: [P] V* of each; None where there is no value table.
    """

    problems: Sequence[Problem]
    vocabulary: Vocabulary
    prompt_format: PromptFormat
    lengths_P: NDArray[np.int64]
    values_P: NDArray[np.float64] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest; 0 if there is none."""
        return int(self.lengths_P.max(initial=0))

    def take(self, places: ArrayLike) -> "Prompts":
        """The prompts at some places, or where a mask [P] is true."""
        chosen = np.arange(len(self))[np.asarray(places)]
        values_P = None if self.values_P is None else self.values_P[chosen]
        problems = taken(self.problems, chosen)
        return replace(self, problems=problems, lengths_P=self.lengths_P[chosen], values_P=values_P)

    def __len__(self) -> int:
        return len(self.lengths_P)

    @overload
    def __getitem__(self, place: int) -> Prompt: ...

    @overload
    def __getitem__(self, place: slice) -> "Prompts": ...

    def __getitem__(self, place: int | slice) -> "Prompt | Prompts":
        """One prompt, or those of a slice."""
        chosen = range(len(self))[place]  # IndexError beyond the last
        if isinstance(chosen, range):
            return self.take(chosen)
        problem = self.problems[chosen]
        token_ids = self.vocabulary.render(problem, self.prompt_format)
        return Prompt(problem, tuple(token_ids), self._value(chosen))

    def __iter__(self) -> Iterator[Prompt]:
        place = 0
        for problems in _in_parts(self.problems):
            rendered = self.vocabulary.render_all(problems, self.prompt_format)
            for problem, token_ids in zip(problems, rendered, strict=True):
                yield Prompt(problem, tuple(token_ids), self._value(place))
                place += 1

    def _value(self, place: int) -> float | None:
        return None if self.values_P is None else float(self.values_P[place])


def open_prompts(
    problems: Sequence[Problem],
    vocabulary: Vocabulary,
    prompt_format: PromptFormat,
    max_prompt_tokens: int | None,
    max_new_tokens: int,
    known_P: NDArray[np.int64] | None = None,
) -> Prompts:
    """Finds the prompts of problems; those that are too long are set aside.

    Args:
        problems: In the order wanted.
        vocabulary: The model's.
        prompt_format: See `Vocabulary.render`.
        max_prompt_tokens: Longer prompts are set aside, and the log says how many; None for no
            limit.
        max_new_tokens: Limit of a response, for which there has to be room as well.
        known_P: [P] how long prompts are known to be, 0 for those that are to be tokenised.

    Raises:
        UserError: No prompt is short enough, or the longest leaves no room for a response in the
            model's context.
    """
    limit = sys.maxsize if max_prompt_tokens is None else max_prompt_tokens
    prompts = fit_prompts(problems, vocabulary, prompt_format, limit, known_P)
    context, longest = vocabulary.context, prompts.longest
    if context is not None and longest + max_new_tokens > context:
        remedies = []
        if longest < context:
            remedies.append(f"set max_new_tokens to {context - longest} or less")
        if max_prompt_tokens is not None:
            remedies.append("set longer prompts aside by a smaller max_prompt_tokens")
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} do not fit the "
            f"context of {vocabulary.name}, {context} tokens; "
            f"{', or '.join(remedies) or 'it is too long'}"
        )
    return prompts


def fit_prompts(
    problems: Sequence[Problem],
    vocabulary: Vocabulary,
    prompt_format: PromptFormat,
    max_tokens: int,
    known_P: NDArray[np.int64] | None = None,
) -> Prompts:
    """The prompts of problems without those that are too long; see `open_prompts`.

    None is ever cut.

    Raises:
        UserError: None fits, or one is empty: no token would predict the first of a response.
    """
    lengths_P = np.zeros(len(problems), np.int64) if known_P is None else known_P.copy()
    if (unknown := np.flatnonzero(lengths_P == 0)).size:
        lengths_P[unknown] = _lengths(taken(problems, unknown), vocabulary, prompt_format)
    if (empty := np.flatnonzero(lengths_P == 0)).size:
        raise UserError(f"{problems[empty[0]].id}: its prompt has no token; give it a text")
    fits_P = lengths_P <= max_tokens
    if not fits_P.any():
        raise UserError(
            f"every prompt is longer than max_prompt_tokens={max_tokens} (shortest: "
            f"{lengths_P.min()})"
        )
    if num_set_aside := int((~fits_P).sum()):
        logger.warning(f"set aside: {num_set_aside} prompts of more than {max_tokens} tokens")
    return Prompts(problems, vocabulary, prompt_format, lengths_P).take(fits_P)


def _lengths(
    problems: Sequence[Problem], vocabulary: Vocabulary, prompt_format: PromptFormat
) -> NDArray[np.int64]:
    """[P] tokens of each problem's prompt."""
    lengths = [
        len(token_ids)
        for some in _in_parts(problems)
        for token_ids in vocabulary.render_all(some, prompt_format)
    ]
    return np.array(lengths, np.int64)


def _in_parts(problems: Iterable[Problem]) -> Iterator[list[Problem]]:
    rest = iter(problems)
    while part := list(islice(rest, _AT_A_TIME)):
        yield part
