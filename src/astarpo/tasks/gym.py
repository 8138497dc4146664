"""Tasks of reasoning-gym by name: `reasoning_gym:chain_sum`. Needs the extra `reasoning-gym`.

Problems and scores are the library's. Splits are not: its item i of seed s is item i - 1 of seed
s + 1, so here the hash of the question decides the split, as for the tasks in `made.py`.
"""

import difflib
import importlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any, ClassVar

from astarpo.runtime.seeding import derive_seed
from astarpo.tasks.made import new_of_split
from astarpo.types import Message, Problem, UserError, Verdict

GYM_PREFIX = "reasoning_gym:"

INSTRUCTION = "Put the final answer between <answer> and </answer>."

_MAX_MISSES = 5000

# The library's usual number: some of its data sets make all their items at once.
_PIECE = 500

_NUM_CHECKED = 2

_TUPLE = "tuple"
"""JSON has no tuples, and some scorers tell them from lists: this key marks one."""


class ReasoningGym:
    """One data set of reasoning-gym. Rewards are its scorer's: some give partial credit.

    The ground truth is the library's whole entry as JSON, since scorers read its metadata. Not all
    scorers work where model output is judged: `check` tells.

    Attributes:
        name: `reasoning_gym:` and the library's name for the data set.
        version: Ours and the library's.
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    isolated: ClassVar[bool] = True
    gold_form: ClassVar[str] = "the library's whole entry as JSON, as astarpo data writes it"

    def __init__(self, data_source: str) -> None:
        """Opens a data set.

        Raises:
            UserError: The library is not installed, or has no data set of the name.
        """
        try:
            library = importlib.import_module("reasoning_gym")
            factory = importlib.import_module("reasoning_gym.factory")
        except ImportError as error:
            raise UserError(
                f"{data_source}: reasoning-gym cannot be imported ({error}); "
                "pip install reasoning-gym"
            ) from error
        self.name = data_source
        self._dataset = data_source.removeprefix(GYM_PREFIX)
        if self._dataset not in factory.DATASETS:
            near = (
                ", ".join(difflib.get_close_matches(self._dataset, factory.DATASETS)) or "chain_sum"
            )
            raise UserError(f"{data_source}: reasoning-gym has no such data set; it has {near}")
        self.version = f"2, reasoning-gym {importlib.metadata.version('reasoning-gym')}"
        self._make = library.create_dataset
        try:
            self._scorer = self._piece(0)
        except Exception as error:  # each data set checks its settings in its own way
            raise UserError(f"{data_source}: reasoning-gym cannot make it ({error!r})") from error

    def problems(
        self, *, source: str | None, split: str, size: int | None, seed: int
    ) -> Iterator[Problem]:
        """Yields different problems of a split until hardly any is left; see `Task.problems`."""
        if source is not None or size is not None:
            raise UserError(f"{self.name} makes its own problems and takes no source and no size")
        if split not in ("train", "test"):
            raise UserError(f"{self.name} has the splits train and test, not {split!r}")
        drawn = new_of_split(self._entries(seed), split, _MAX_MISSES)
        for index, (digest, entry) in enumerate(drawn):
            yield Problem(
                id=f"{self.name}/{split}/{digest:016x}",
                data_source=self.name,
                prompt=(Message(role="user", content=f"{entry['question']}\n{INSTRUCTION}"),),
                ground_truth=_to_json(entry),
                ability="reasoning",
                extra={"split": split, "index": index},
            )

    def can_judge(self, ground_truth: str) -> bool:
        """See `Task.can_judge`."""
        try:
            entry = json.loads(ground_truth)
        except (ValueError, RecursionError):
            return False
        return isinstance(entry, dict) and "answer" in entry

    def grade(self, response: str, ground_truth: str) -> Verdict:
        """Scores what stands in the last `<answer>...</answer>`."""
        _, opened, rest = response.rpartition("<answer>")
        answer, closed, _ = rest.partition("</answer>")
        if not opened or not closed:
            return Verdict(reward=0.0, answer=None, status="no_answer")
        entry = _from_json(ground_truth)
        reward = float(self._scorer.score_answer(answer=answer.strip(), entry=entry))
        return Verdict(reward, answer.strip(), "ok")

    def examples(self) -> list[dict[str, Any]]:
        """A few of the library's entries. Making them may run code that the library makes."""
        return list(islice(self._scorer, _NUM_CHECKED))

    def check(self, examples: Iterable[dict[str, Any]]) -> None:
        """Judges the library's own answers to its questions, as those of a model are.

        Raises:
            UserError: One does not get reward 1, so no model could earn it.
        """
        for entry in examples:
            stated = f"its own answer {entry['answer']!r:.80}"
            if entry["answer"] is None:
                raise UserError("reasoning-gym states no right answers to its questions")
            ground_truth = _to_json(entry)
            try:
                reward = self.grade(right_response(ground_truth), ground_truth).reward
            except Exception as error:  # scorers fail in many ways
                raise UserError(f"reasoning-gym's scorer fails on {stated}: {error!r}") from error
            if reward < 1:
                raise UserError(f"reasoning-gym's scorer gives {stated} {reward:g} instead of 1")

    def _entries(self, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
        # Its random numbers are those of seed + index, so pieces side by side do not overlap.
        for start in count(derive_seed(seed, "reasoning_gym", self._dataset) % 2**31, _PIECE):
            for entry in self._piece(start):
                yield f"{self.name}:{entry['question']}", entry

    def _piece(self, start: int) -> Any:
        return self._make(self._dataset, size=_PIECE, seed=start)


def right_response(ground_truth: str) -> str:
    """A response that states the library's own answer."""
    return f"<answer>{_from_json(ground_truth)['answer']}</answer>"


def _to_json(entry: dict[str, Any]) -> str:
    def marked(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: marked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [marked(item) for item in value]
            return {_TUPLE: items} if isinstance(value, tuple) else items
        return value

    return json.dumps(marked(entry), default=str)


def _from_json(text: str) -> dict[str, Any]:
    def unmarked(value: dict[str, Any]) -> Any:
        return tuple(value[_TUPLE]) if value.keys() == {_TUPLE} else value

    return json.loads(text, object_hook=unmarked)
