"""Answers of two policies to one problem, side by side on the screen or in a pipe."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from astarpo.runtime.words import shown
from astarpo.types import Problem, Verdict
from astarpo.verbs.questions import ANSWER_MARK, TYPED

_PIPE_WIDTH = 100
_LONGEST_ANSWER = 4000


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: What the policy wrote.
        is_cut: Whether the token limit cut it.
        verdict: What the task says of it; None where nothing can judge it.
    """

    text: str
    is_cut: bool
    verdict: Verdict | None


@dataclass(frozen=True)
class Exchange:
    """A problem and what two policies answer.

    Attributes:
        problem: What was asked.
        value: V* and its standard error, NaN where that is not known; None where the value table
            does not have the problem.
        replies: Answers of each side, by its name.
    """

    problem: Problem
    value: tuple[float, float] | None
    replies: Mapping[str, Sequence[Reply]]


def show(exchange: Exchange) -> None:
    """Prints an exchange to standard output."""
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    problem = exchange.problem
    console.print(Text(shown(problem.prompt[-1]["content"].strip()), style="bold"))
    console.print(Text(_facts(exchange), style="dim"))
    table = Table(expand=True)
    for name, replies in exchange.replies.items():
        table.add_column(f"{name}{_share_right(replies)}", ratio=1)
    table.add_row(*(_cell(replies) for replies in exchange.replies.values()))
    console.print(table)


def _facts(exchange: Exchange) -> str:
    """What is known of the problem beside its text."""
    problem = exchange.problem
    if not problem.data_source:
        return (
            f"not one of the run's problems: to have it judged, add {ANSWER_MARK} and the right "
            "answer"
        )
    facts = [problem.id]
    if problem.ground_truth:
        facts.append(f"right: {problem.ground_truth}")
    if exchange.value is not None:
        value, error = exchange.value
        facts.append(f"V* {value:.3f}" + f" ± {error:.3f}" * math.isfinite(error))
    elif problem.id != TYPED:
        facts.append("V* not estimated: held out, or set aside")
    return shown("   ".join(facts))


def _share_right(replies: Sequence[Reply]) -> str:
    rewards = [reply.verdict.reward for reply in replies if reply.verdict]
    if len(rewards) < 2:
        return ""
    return f", mean reward {sum(rewards) / len(rewards):.2f} of {len(rewards)}"


def _cell(replies: Sequence[Reply]) -> Group:
    parts = []
    for reply in replies:
        cut = " [cut at the token limit]" if reply.is_cut else ""
        parts.append(Text(shown(reply.text.strip(), _LONGEST_ANSWER) + cut))
        if reply.verdict:
            parts.append(_verdict(reply.verdict))
        parts.append(Text())
    return Group(*parts[:-1])


def _verdict(verdict: Verdict) -> Text:
    """A verdict in words, coloured where there are colours."""
    is_right = verdict.reward >= 1
    word = {"ok": "right" if is_right else "wrong"}.get(verdict.status, verdict.status)
    reward = "" if verdict.reward in (0, 1) else f", reward {verdict.reward:g}"
    answer = "" if verdict.answer is None else f" ({shown(verdict.answer, 200)})"
    return Text(f"-> {word.replace('_', ' ')}{answer}{reward}", "green" if is_right else "red")
