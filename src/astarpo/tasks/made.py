"""What the tasks that make up their problems share: splits, order and the answer after `####`.

A problem's identity (`47*86` and `86*47` have the same) alone decides its split, whatever the seed,
so that training and test problems never meet.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, TypeVar

from astarpo.types import Message, Problem, UserError, Verdict
from astarpo.verify.marker import marked_answer
from astarpo.verify.numbers import parse_number, plain_notation

TEST_SHARE = 8
"""One identity in this many belongs to the test split."""

_MAX_MISSES = 50_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draft:
    """A made problem before it has a place in a split.

    Attributes:
        label: Names the problem as asked; the last part of its id.
        identity: The same for problems that should count as one.
        question: The prompt's text.
        ground_truth: The reference answer.
        solution: A worked solution that the task's verifier judges right.
    """

    label: str
    identity: str
    question: str
    ground_truth: str
    solution: str


class MadeTask(ABC):
    """A task that makes up its problems. A subclass says how one is made, and how it is judged.

    Attributes:
        default_size: The size of problems where the user gives none.
        sizes: The sizes that there are.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[str]
    isolated: ClassVar[bool] = False
    gold_form: ClassVar[str] = "one number alone, such as 18"
    default_size: ClassVar[int]
    sizes: ClassVar[range]

    @abstractmethod
    def draft(self, rng: random.Random, size: int) -> Draft:
        """Makes one problem from the stream of random numbers."""

    @abstractmethod
    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges what follows the last `####` of a response."""

    def can_judge(self, ground_truth: str) -> bool:
        """See `Task.can_judge`."""
        return parse_number(ground_truth) is not None

    def problems(
        self, *, source: str | None, split: str, size: int | None, seed: int
    ) -> Iterator[Problem]:
        """Yields different problems of a split until hardly any is left; see `Task.problems`."""
        if source is not None:
            raise UserError(f"{self.name} makes its own problems and takes no source")
        if split not in ("train", "test"):
            raise UserError(f"{self.name} has the splits train and test, not {split!r}")
        size = self.default_size if size is None else size
        if size not in self.sizes:
            raise UserError(
                f"{self.name} takes sizes {self.sizes[0]} to {self.sizes[-1]}, not {size}"
            )
        rng = random.Random(f"{self.name}/{split}/{size}/{seed}")
        drafts = iter(lambda: self.draft(rng, size), None)
        drawn = ((f"{self.name}:{draft.identity}", draft) for draft in drafts)
        for index, (_, draft) in enumerate(new_of_split(drawn, split, _MAX_MISSES)):
            yield Problem(
                id=f"{self.name}/{split}/{draft.label}",
                data_source=self.name,
                prompt=(Message(role="user", content=draft.question),),
                ground_truth=draft.ground_truth,
                extra={"split": split, "index": index, "size": size, "solution": draft.solution},
            )


def new_of_split(
    drawn: Iterable[tuple[str, T]], split: str, max_misses: int
) -> Iterator[tuple[int, T]]:
    """Keeps the different problems of a split, until hardly any is left.

    Args:
        drawn: Identities and problems of both splits, repeats among them, without end.
        split: `train` or `test`.
        max_misses: After this many in a row without a new one, hardly any can be left.

    Yields:
        The digest of each new identity, and the problem.
    """
    seen: set[int] = set()
    misses = 0
    for identity, problem in drawn:
        digest = int.from_bytes(blake2b(identity.encode(), digest_size=8).digest(), "big")
        if digest not in seen and ("test" if digest % TEST_SHARE == 0 else "train") == split:
            seen.add(digest)
            misses = 0
            yield digest, problem
        elif (misses := misses + 1) == max_misses:
            return


def judge_marked_number(response: str, ground_truth: str) -> Verdict:
    """Judges a response whose `####` line must be the right number and nothing else."""
    answer = marked_answer(response)
    if answer is None:
        return Verdict(reward=0.0, answer=None, status="no_answer")
    value = parse_number(plain_notation(answer))
    if value is None:
        return Verdict(reward=0.0, answer=answer, status="unparsable")
    return Verdict(float(value == parse_number(ground_truth)), answer, "ok")
