"""Which verifiers judge a problem set, and their versions, for the value table's fingerprint.

Every verb asks for it before any work, so this is also where problems that cannot be judged are
refused.
"""

from collections.abc import Sequence

from astarpo.grading.grade import check_scorer
from astarpo.grading.reward import RewardFunction
from astarpo.grading.verifiers import get_verifier, permitted_sources, refuse_unnamed
from astarpo.tasks.base import Task
from astarpo.tasks.gym import ReasoningGym
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
    sources = {problem.data_source for problem in problems}
    for source in sorted(sources):
        refuse_unnamed(source, permitted_sources(reward), flag)
    verifiers = {source: get_verifier(source) for source in sources}
    for source, verifier in verifiers.items():
        if isinstance(verifier, RewardFunction):
            verifier.check_columns(p for p in problems if p.data_source == source)
        else:
            if isinstance(verifier, ReasoningGym):
                check_scorer(source)
            _refuse_unjudgeable(verifier, [p for p in problems if p.data_source == source])
    versions = {verifier.name: verifier.version for verifier in verifiers.values()}
    return {f"verifier of {name}": version for name, version in sorted(versions.items())}


def _refuse_unjudgeable(task: Task | ReasoningGym, problems: Sequence[Problem]) -> None:
    wrong = [problem for problem in problems if not task.can_judge(problem.ground_truth)]
    if wrong:
        raise UserError(
            f"{task.name} cannot judge against {len(wrong)} of {len(problems)} reference answers, "
            f"the first {wrong[0].ground_truth!r:.80} of {wrong[0].id}: it wants {task.gold_form}; "
            "mend them, leave these problems out, or give astarpo data a function of yours that "
            "judges them (--reward)"
        )
