"""What is wrong with problems, found before anything is sampled."""

from collections.abc import Sequence
from dataclasses import dataclass

from astarpo.tasks.overlap import near_question, question
from astarpo.types import Problem


@dataclass(frozen=True)
class Checks:
    """Counts of problems.

    Attributes:
        read: Training problems, as the source has them.
        held_out: Held-out ones.
        repeated: Training problems that ask, word for word, what one before them asks.
        near: Further ones that differ from one before only in order, case, spacing or the way
            numbers are written.
        overlap: Training problems that ask what a held-out one asks; a run leaves them out.
        near_overlap: Held-out problems that are near a training problem in that sense; a run warns.
        too_long: Training problems whose prompts are too long; a run sets them aside.
    """

    read: int
    held_out: int
    repeated: int
    near: int
    overlap: int
    near_overlap: int
    too_long: int

    def lines(self, max_prompt_tokens: int) -> list[str]:
        """The counts in words."""
        return [
            f"reference answers: all {self.read:,} for training and {self.held_out:,} held out "
            "can be judged",
            f"asked twice: {self.repeated:,} word for word, {self.near:,} nearly",
            f"also held out: {self.overlap:,} (a run leaves them out of training); nearly "
            f"{self.near_overlap:,}",
            f"prompts of more than {max_prompt_tokens:,} tokens: {self.too_long:,} (a run sets "
            "them aside)",
        ]


def check_problems(
    problems: Sequence[Problem], held_out: Sequence[Problem], too_long: int
) -> Checks:
    """Counts what is the same, or nearly, in problems that can all be judged.

    Args:
        problems: For training, before what is held out is left out.
        held_out: The others.
        too_long: How many of the first have prompts that are too long.
    """
    asked = {question(problem) for problem in problems}
    kept = {question(problem) for problem in held_out}
    first = {question(problem): problem for problem in reversed(problems)}
    near = {near_question(problem) for problem in first.values()}
    of_training = {near_question(p) for p in problems if question(p) not in kept}
    return Checks(
        read=len(problems),
        held_out=len(held_out),
        repeated=len(problems) - len(asked),
        near=len(asked) - len(near),
        overlap=sum(question(problem) in kept for problem in problems),
        near_overlap=sum(near_question(problem) in of_training for problem in held_out),
        too_long=too_long,
    )
