"""The records that flow through the package. Imports no torch, so that verifier workers start fast.

A `Problem` becomes a prompt; the engine answers it with a `Completion`; a task judges the
completion's text and gives a `Verdict`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, get_args

Status = Literal["ok", "no_answer", "unparsable", "timeout", "error"]
"""How judging went: `ok` judged; `no_answer` the response states none; `unparsable` it states one
that cannot be read; `timeout` judging was killed at its limit; `error` the verifier failed."""

STATUSES: tuple[Status, ...] = get_args(Status)

FinishReason = Literal["stop", "length"]
"""Why generation ended: a stop id was sampled, or the token limit was reached (truncated)."""


class UserError(ValueError):
    """A mistake of the user's: the message says what is wrong, where, and what to do.

    The command line prints it as one line and exits with code 2.
    """


class TrainingStopped(RuntimeError):
    """Training went wrong in a way that going on would not mend: the message says what to do."""


class EngineStopped(TrainingStopped):
    """The engine failed, or does not sample from the policy: what was done before it can be kept.

    The policy itself is whole, so training saves it and ends; stage 1 ends with the samples so far.
    """


class StopTraining(Exception):
    """Raise it in `on_step` of `astarpo.train` to end training after that step.

    The run then ends as one whose time is up: with a checkpoint, its model and its summary. The
    same call with `resume=True` goes on from there.

    Example:
        >>> def on_step(row):
        ...     if row["reward"] > 0.9:
        ...         raise astarpo.StopTraining("good enough")
    """


class Message(TypedDict):
    """One chat message, as chat templates take it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its reference answer.

    Attributes:
        id: Unique within a problem set; does not depend on the text alone.
        data_source: What judges it: a task's name or one of its aliases (`openai/gsm8k`), or a
            user's function (`reward:FILE.py:NAME`).
        prompt: Chat messages, first to last.
        ground_truth: The reference answer in the task's own notation.
        ability: verl's field of the same name, such as `math`.
        extra: Further facts: `split`, `index`, `solution` where a worked one is known, and the
            other columns of a user's own rows.
    """

    id: str
    data_source: str
    prompt: tuple[Message, ...]
    ground_truth: str
    ability: str = "math"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of what is asked and how it is judged: two problems of one id must agree in it."""
        content = json.dumps([self.data_source, self.prompt, self.ground_truth])
        return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def taken(problems: Sequence[Problem], places: Iterable[int]) -> Sequence[Problem]:
    """The problems at some places; those of a file stay there (`tasks/problem_table.py`)."""
    take = getattr(problems, "take", None)
    return take(places) if take else [problems[i] for i in places]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem as the policy reads it.

    Attributes:
        problem: What is asked.
        token_ids: Its rendered prompt.
        value: The estimate of V*, in units of reward; None where there is no value table.
    """

    problem: Problem
    token_ids: tuple[int, ...]
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one response.

    Attributes:
        reward: 0 or 1 for the shipped tasks; any finite number of a user's function.
        answer: The answer as extracted from the response, None where there is none.
        status: How judging went.
    """

    reward: float
    answer: str | None
    status: Status


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response. The token ids are the record; text is a view of them.

    Attributes:
        token_ids: Response ids, the terminal stop id included when there is one.
        logprobs: Log-probability of each id under the distribution it was sampled from (nats);
            empty where they were not kept, as of a value table's samples.
        finish_reason: `stop`, or `length` where the limit cut it.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Answer:
    """One judged completion of a prompt."""

    prompt: Prompt
    completion: Completion
    text: str
    verdict: Verdict

    @property
    def sequence(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the prompt and of the response."""
        return self.prompt.token_ids, self.completion.token_ids
