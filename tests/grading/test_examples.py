"""The examples in docstrings run, and say what they print."""

import doctest
import re
import sys
import textwrap

import pytest

from astarpo import tasks
from astarpo.config import DataConfig
from astarpo.grading import grade, grader, reward
from astarpo.grading.grader import Grader
from astarpo.stages.data import data
from astarpo.tasks.base import Task
from astarpo.tasks.problem_set import read_problems


def indented_code(docstring: str, first_line: str) -> str:
    """The code of a docstring that begins with a line and ends where less is indented."""
    found = re.search(rf"^( +){re.escape(first_line)}.*?(?=^(?!\1|$)|\Z)", docstring, re.M | re.S)
    assert found
    return textwrap.dedent(found[0])


@pytest.mark.parametrize("module", [grade, grader, reward], ids=lambda module: module.__name__)
def test_examples_print_what_they_say(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    code = indented_code(reward.RewardFunction.__doc__ or "", "def score(")
    (tmp_path / "rewards.py").write_text(code)
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_example_of_a_task_is_complete(tmp_path, monkeypatch):
    names: dict = {}
    exec(indented_code(Task.__doc__ or "", "from astarpo.types"), names)
    task: Task = names["Backwards"]()
    monkeypatch.setitem(tasks._BY_DATA_SOURCE, task.name, task)
    problems = read_problems(data(DataConfig(task="backwards", out=tmp_path / "p.parquet")))
    assert [problem.ground_truth for problem in problems] == ["enots", "revir", "duolc"]
    with Grader(num_workers=1, timeout_s=1.0) as one:
        verdicts = one.grade(problems, ["It is enots", "river", ""])
    assert [(v.reward, v.status) for v in verdicts] == [
        *((1.0, "ok"), (0.0, "ok"), (0.0, "no_answer")),
    ]
