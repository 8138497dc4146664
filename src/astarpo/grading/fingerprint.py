"""Which verifiers judge a problem set, and their versions, for the value table's fingerprint.

Every verb asks for it before any work, so this is also where problems that cannot be judged are
refused.
"""

from collections.abc import Container, Sequence
from typing import NoReturn

from astarpo.grading.grade import check_scorer
from astarpo.grading.reward import RewardFunction
from astarpo.grading.verifiers import get_verifier, permitted_sources, refuse_unnamed
from astarpo.tasks.base import Task
from astarpo.tasks.gym import ReasoningGym
from astarpo.tasks.problem_table import ground_truths
from astarpo.types import Problem, UserError


def verifier_fingerprint(
    problems: Sequence[Problem], reward: str | None = None, flag: str = "--trust-reward"
) -> dict[str, str]:
    """Versions of the verifiers that judge these problems, one entry a task.

    A problem file may come from anyone, and a reward function is code that runs with the file's
    columns as arguments. So nothing is loaded unless the user has named the same function.

    Args:
        problems: What is to be judged.
        reward: The one function that the user let run. A task's name there permits nothing, since
            the problems themselves say which task judges them.
        flag: The flag by which a user names a function, for the message.

    Raises:
        UserError: A problem asks for a function that the user did not name, or for a task that does
            not exist; a function does not load, or a problem lacks a column that it asks for; a
            task cannot judge against a reference answer; or a scorer of reasoning-gym does not
            work in a worker process.
    """
    truths = ground_truths(problems)
    for source in sorted(truths):
        refuse_unnamed(source, permitted_sources(reward), flag)
    verifiers = {source: get_verifier(source) for source in truths}
    for source, verifier in verifiers.items():
        if isinstance(verifier, RewardFunction):
            verifier.check_columns(p for p in problems if p.data_source == source)
        else:
            if isinstance(verifier, ReasoningGym):
                check_scorer(source)
            if wrong := {truth for truth in truths[source] if not verifier.can_judge(truth)}:
                _refuse(verifier, [p for p in problems if p.data_source == source], wrong)
    versions = {verifier.name: verifier.version for verifier in verifiers.values()}
    return {f"verifier of {name}": version for name, version in sorted(versions.items())}


def _refuse(
    task: Task | ReasoningGym, problems: Sequence[Problem], unreadable: Container[str]
) -> NoReturn:
    wrong = [problem for problem in problems if problem.ground_truth in unreadable]
    raise UserError(
        f"{task.name} cannot judge against {len(wrong)} of {len(problems)} reference answers, "
        f"the first {wrong[0].ground_truth!r:.80} of {wrong[0].id}: it wants {task.gold_form}; "
        "mend them, leave these problems out, or give astarpo data a function of yours that "
        "judges them (--reward)"
    )
