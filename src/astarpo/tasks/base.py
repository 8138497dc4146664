"""What a task is: where its problems come from, and how a response to one is judged."""

from collections.abc import Iterator
from typing import ClassVar, Protocol

from astarpo.types import Problem, Verdict


class Task(Protocol):
    """A source of problems and the one verifier that judges them in every stage.

    Attributes:
        name: The task's name on the command line and in `data_source`.
        aliases: Further values of `data_source` that mean this task (as published files have them).
        version: Version of the verifier. It is part of a value table's fingerprint: raise it
            whenever a verdict could change.
        isolated: Whether judging runs in killable worker processes (anything that may hang).
        gold_form: What a reference answer looks like, for messages.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]]
    version: ClassVar[str]
    isolated: ClassVar[bool]
    gold_form: ClassVar[str]

    def problems(
        self, *, source: str | None, split: str, size: int | None, seed: int
    ) -> Iterator[Problem]:
        """Yields the problems of a split, in a fixed order.

        Args:
            source: A local file, or a hub data set's name; None means the task's usual one. Tasks
                that make their own problems take none.
            split: `train` or `test` (file tasks: whatever the source has). Splits never share a
                problem.
            size: Difficulty of made problems (digits, terms, numbers); None for the task's usual.
            seed: Which made problems come, and in what order. No effect on a file's.

        Raises:
            UserError: The source cannot be read or has other columns, or the split is unknown.
        """
        ...

    def can_judge(self, ground_truth: str) -> bool:
        """Says whether `grade` can judge against a reference answer. Cheap: asked of every problem.

        What a task cannot tell without much work, as that LaTeX can be parsed, it lets pass.
        """
        ...

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges the response alone, never the prompt. Never raises on what a model wrote."""
        ...
