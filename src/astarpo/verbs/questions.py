"""What can be asked in a talk: a run's own problems, and what is typed, put as they are put."""

import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from astarpo.grading.reward import REWARD_PREFIX
from astarpo.runtime.words import closest
from astarpo.tasks import get_task
from astarpo.types import Message, Problem, UserError

ANSWER_MARK = "=>"
"""What parts a typed problem from the answer that is right."""
TYPED = "typed"
"""The id of a problem that is none of the run's."""

_ENOUGH_PROBLEMS = 8
"""Fewer problems may have words in common by chance."""
_LOOKED_AT = 500
"""Problems whose texts are compared; all of a large set would take long."""


@dataclass(frozen=True)
class Frame:
    """What all prompts of a problem set have in common around their questions.

    Attributes:
        before: Text before each question.
        after: Text after each, such as an instruction.
        messages: Messages before the one that asks, such as a system message.
    """

    before: str = ""
    after: str = ""
    messages: tuple[Message, ...] = ()

    def put(self, typed: str) -> str:
        """A typed question as the problems' own are put; what was typed of the frame stays once.

        Example:
            >>> Frame("Compute ", ". Answer after ####.").put("Compute 3 + 4.")
            'Compute 3 + 4. Answer after ####.'
        """
        before = self.before
        for length in range(len(before), -1, -1):
            if typed.startswith(before[len(before) - length :]):
                typed = before[: len(before) - length] + typed
                break
        for length in range(len(self.after), -1, -1):
            if typed.endswith(self.after[:length]):
                return typed + self.after[length:]
        return typed


def frame_of(problems: Sequence[Problem]) -> Frame:
    """The frame of a problem set; an empty one where its problems have nothing in common."""
    looked_at = problems[:_LOOKED_AT]
    messages = {problem.prompt[:-1] == problems[0].prompt[:-1] for problem in looked_at}
    common = problems[0].prompt[:-1] if messages == {True} else ()
    texts = [problem.prompt[-1]["content"] for problem in looked_at]
    if len(texts) < _ENOUGH_PROBLEMS:
        return Frame(messages=common)
    before = os.path.commonprefix(texts)  # noqa: RUF071  of characters, not of paths
    rests = [text[len(before) :][::-1] for text in texts]
    after = os.path.commonprefix(rests)[::-1]  # noqa: RUF071
    # Whole words only: all questions may begin with "Wh", or end in "es?".
    return Frame(re.sub(r"\S+\Z", "", before), re.sub(r"\A\w+", "", after), common)


class Questions:
    """The problems of a run, to be found by id, by text or at random."""

    def __init__(self, problems: Sequence[Problem], seed: int) -> None:
        """Takes problems, of any number and splits; the seed decides what `pick` picks."""
        self.problems = list(problems)
        self.frame = frame_of(self.problems) if self.problems else Frame()
        self._by_id = {problem.id: problem for problem in self.problems}
        self._by_text = {p.prompt[-1]["content"].strip(): p for p in self.problems}
        self._random = random.Random(seed)

    def by_id(self, name: str) -> Problem:
        """The problem of an id; raises UserError where there is none."""
        self._require_some()
        if name not in self._by_id:
            near = closest(name, self._by_id) or self.problems[0].id
            raise UserError(f"{name}: no problem of this run has that id; one that has: {near}")
        return self._by_id[name]

    def pick(self) -> Problem:
        """One of the problems, another at each call; raises UserError where there are none."""
        self._require_some()
        return self._random.choice(self.problems)

    def typed(self, text: str) -> Problem:
        """The run's problem that a text asks, or a new one.

        Args:
            text: A question, or `QUESTION => ANSWER`, which the run's task can judge.

        Raises:
            UserError: An answer is given that the task cannot read.
        """
        question, arrow, gold = (part.strip() for part in text.rpartition(ANSWER_MARK))
        asked = self.frame.put(question if arrow else gold)
        for known in (gold, asked.strip()):
            if known in self._by_text and not arrow:
                return self._by_text[known]
        message = Message(role="user", content=asked)
        source = self._require_judge(gold) if arrow else ""
        return Problem(TYPED, source, (*self.frame.messages, message), gold if arrow else "")

    def _require_judge(self, gold: str) -> str:
        """The task of the run's problems, which is to judge against an answer that was typed."""
        sources = {problem.data_source for problem in self.problems}
        if len(sources) != 1 or next(iter(sources)).startswith(REWARD_PREFIX):
            raise UserError(f"no one task judges the problems of this run: leave {ANSWER_MARK} out")
        task = get_task(sources.pop())
        if not task.can_judge(gold):
            raise UserError(f"{task.name} cannot judge against {gold!r}: it wants {task.gold_form}")
        return task.name

    def _require_some(self) -> None:
        if not self.problems:
            raise UserError("the run's problem files are gone: type a problem instead")
