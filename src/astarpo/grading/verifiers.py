"""What judges the problems of a data source: a task, or a user's reward function.

A problem file may come from anyone, and it says by its `data_source` what judges it. A reward
function is code, so it runs only where the user has named the same function: `refuse_unnamed`.
"""

from collections.abc import Container

from astarpo.grading.reward import REWARD_PREFIX, RewardFunction
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
    if data_source.startswith(REWARD_PREFIX):
        return RewardFunction(data_source)
    return get_task(data_source)


def permitted_sources(reward: str | None) -> set[str]:
    """The `data_source` of the reward function that the user named; nothing where none is."""
    return {f"{REWARD_PREFIX}{reward}"} if reward else set()


def refuse_unnamed(
    data_source: str, permitted: Container[str], flag: str = "--trust-reward"
) -> None:
    """Refuses to run a function that a problem file asks for and the user did not name.

    Args:
        data_source: What a problem says judges it.
        permitted: The result of `permitted_sources`.
        flag: The flag by which a user names a function, for the message.
    """
    if not data_source.startswith(REWARD_PREFIX) or data_source in permitted:
        return
    function = data_source.removeprefix(REWARD_PREFIX)
    raise UserError(
        f"the problem file asks to run the function {function!r:.200} to judge its answers: if it "
        f"is yours, give {flag} FILE.py:NAME, written as it is there; else do not use the file"
    )
