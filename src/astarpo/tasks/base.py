"""What a task is: where its problems come from, and how a response to one is judged.

To add one, write a class with these attributes and methods. Give it to `astarpo.load_problems`, or
let your package add it by an entry point (see `astarpo/tasks/__init__.py`). To ship it, put it into
a file of this folder, and an instance into the list there. Every verb then knows it by its name.
Tasks that make up their problems extend `made.MadeTask`; those whose problems are published read
them by `sources.published_problems`.
"""

from collections.abc import Iterator
from typing import ClassVar, Protocol

from astarpo.types import Problem, Verdict


class Task(Protocol):
    """A source of problems and the one verifier that judges them in every stage.

    Example:
        A complete task. Nothing else is needed.

            from astarpo.types import Problem, Verdict

            WORDS = {"train": ("stone", "river", "cloud"), "test": ("night",)}


            class Backwards:
                name = "backwards"
                aliases = ()
                version = "1"
                isolated = False
                gold_form = "one word"

                def problems(self, *, source, split, size, seed):
                    for index, word in enumerate(WORDS[split]):
                        yield Problem(
                            id=f"backwards/{split}/{index}",
                            data_source=self.name,
                            prompt=({"role": "user", "content": f"Spell {word} backwards."},),
                            ground_truth=word[::-1],
                            extra={"split": split, "index": index},
                        )

                def can_judge(self, ground_truth):
                    return ground_truth.isalpha()

                def grade(self, response, ground_truth):
                    words = response.split()
                    if not words:
                        return Verdict(reward=0.0, answer=None, status="no_answer")
                    return Verdict(float(words[-1] == ground_truth), words[-1], "ok")

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
            source: A local file, or a hub data set's name; None for the task's usual one. Tasks
                that make up their problems take no source.
            split: `train` or `test` (of a file or a hub data set, whatever it has). Splits never
                share a problem.
            size: Difficulty of problems that are made up (digits, terms, numbers); None for the
                task's usual one.
            seed: Which problems are made up, and in what order. It changes nothing about a file's.

        Raises:
            UserError: The source cannot be read or has other columns, or the split is unknown.
        """
        ...

    def can_judge(self, ground_truth: str) -> bool:
        """Says whether `grade` can judge against a reference answer.

        It is asked of every problem, so it is to be cheap: what would take much work to tell, such
        as whether LaTeX can be parsed, it lets pass.
        """
        ...

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Judges the response alone, never the prompt. Never raises on what a model wrote."""
        ...
