"""What judges the problems of a data source: a task, or a user's reward function."""

from astarpo.grading.reward import PREFIX, RewardFunction
from astarpo.tasks import get_task
from astarpo.tasks.base import Task
from astarpo.tasks.gym import ReasoningGym
from astarpo.types import UserError

Verifier = Task | ReasoningGym | RewardFunction
"""What judges problems of one `data_source`."""


def get_verifier(data_source: str) -> Verifier:
    """Returns what judges the problems of a data source: a task, or a user's reward function.

    Not cached: a reward function's file may change.

    Raises:
        UserError: There is none, or the user's function cannot be loaded.
    """
    if data_source.startswith(PREFIX):
        return RewardFunction(data_source)
    return get_task(data_source)


def permitted_sources(reward: str | None) -> set[str]:
    """The data source that a reward function named by the user opens, if one is."""
    return {f"{PREFIX}{reward}"} if reward else set()


def not_named(data_source: str, flag: str = "--trust-reward") -> UserError:
    """The error for a problem file that asks to run a function which the user did not name."""
    function = data_source.removeprefix(PREFIX)
    return UserError(
        f"the problem file asks to run the function {function!r:.200} to judge its answers: if it "
        f"is yours, give {flag} FILE.py:NAME, written as it is there; else do not use the file"
    )
