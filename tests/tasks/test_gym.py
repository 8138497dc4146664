"""Tasks of reasoning-gym: the library's scores, our splits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from reasoning_gym.factory import DATASETS

from astarpo.config import DataConfig
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.grading.grade import grade
from astarpo.stages.data import data
from astarpo.tasks import get_task
from astarpo.tasks.gym import right_response
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Problem, UserError


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"pip install reasoning-gym$") as caught:
        get_task("reasoning_gym:chain_sum")
    assert "\n" not in str(caught.value)


def taken(split, seed, name="chain_sum", count=200):
    problems = get_task(f"reasoning_gym:{name}").problems(
        source=None, split=split, size=None, seed=seed
    )
    return [problem for problem, _ in zip(problems, range(count), strict=False)]


def test_splits_never_meet_whatever_the_seeds():
    texts = {
        key: {p.prompt[0]["content"] for p in taken(*key)}
        for key in [("train", 0), ("test", 0), ("train", 1), ("test", 1)]
    }
    assert all(len(asked) == 200 for asked in texts.values())
    assert not (texts["train", 0] | texts["train", 1]) & (texts["test", 0] | texts["test", 1])
    assert len(texts["train", 0] & texts["train", 1]) < 20
    assert taken("train", 0) == taken("train", 0)


def test_what_is_written_is_judged_by_the_librarys_scorer(tmp_path):
    out = tmp_path / "gcd.parquet"
    data(DataConfig(task="reasoning_gym:gcd", out=out, limit=4))
    problem = read_problems(out)[0]
    right = problem.ground_truth.split('"answer": "')[1].partition('"')[0]
    judged = [
        grade(problem.data_source, response, problem.ground_truth)
        for response in (f"<answer>1</answer> so <answer> {right}</answer>", right, "<answer>no")
    ]
    assert [v.reward for v in judged] == [1.0, 0.0, 0.0]
    assert [v.status for v in judged] == ["ok", "no_answer", "no_answer"]
    (version,) = verifier_fingerprint([problem]).values()
    assert "reasoning-gym" in version


def test_partial_credit_is_passed_on():
    (problem,) = taken("train", 0, "spell_backward", 1)
    right = problem.ground_truth.split('"answer": "')[1].partition('"')[0]
    reward = grade(problem.data_source, f"<answer>{right[:-1]}</answer>", problem.ground_truth)
    assert 0 < reward.reward < 1


LOAD_ALL = """
import json, sys
from reasoning_gym.factory import DATASETS
from astarpo.tasks import gym
from astarpo.grading import worker
gym._PIECE = gym._NUM_CHECKED = 1
sys.addaudithook(worker._refuse_code_from_text)
outcomes = {}
for name in sorted(DATASETS):
    try:
        outcomes[name] = worker._load({}, {"load": gym.GYM_PREFIX + name, "own_rewards": False})
    except gym.UserError as error:
        outcomes[name] = str(error)
print("\\n" + json.dumps(outcomes))
"""

REFUSED = {
    "runs answers as code": {
        "bitwise_arithmetic", "countdown", "intermediate_integration", "number_sorting",
        "polynomial_multiplication", "puzzle24", "simple_integration",
    },
    "states no right answers": {
        "boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour",
    },
    "cannot make it": {"composite"},
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes():
    """Of every data set of the library: its version where a worker takes it, or why it does not."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_pays_a_right_answer_or_is_refused(outcomes, name):
    reasons = [reason for reason, names in REFUSED.items() if name in names]
    if reasons:
        assert reasons[0] in outcomes[name]
    else:
        assert "reasoning-gym" in outcomes[name]["version"]


@pytest.mark.parametrize("name", ["arc_agi", "chain_sum"])
def test_scorers_get_entries_as_the_library_made_them(name):
    """JSON alone would make lists of the tuples in `arc_agi`, whose scorer then pays .05."""
    (problem,) = taken("train", 0, name, 1)
    response = right_response(problem.ground_truth)
    assert grade(problem.data_source, response, problem.ground_truth).reward == 1.0


def test_the_docs_count_the_data_sets():
    refused = set().union(*REFUSED.values())
    docs = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    assert f"Of its {len(DATASETS)} data sets {len(DATASETS) - len(refused)} are taken" in docs


def test_a_refused_data_set_is_found_before_anything_is_sampled():
    problem = Problem("p", "reasoning_gym:countdown", ({"role": "user", "content": "Q"},), "{}")
    with pytest.raises(UserError, match="runs answers as code"):
        verifier_fingerprint([problem])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "reasoning_gym:chainsum"}, "it has chain_sum"),
        ({"task": "reasoning_gym:composite"}, "cannot make it"),
        ({"task": "reasoning_gym:gcd", "size": 3}, "no size"),
        ({"task": "reasoning_gym:gcd", "split": "dev"}, "not 'dev'"),
        (
            {"task": "reasoning_gym:countdown", "limit": 2},
            "runs answers as code, which is refused here; take another data set$",
        ),
        (
            {"task": "reasoning_gym:rush_hour", "limit": 2},
            "states no right answers to its questions; take another data set$",
        ),
    ],
)
def test_mistakes(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        data(DataConfig(out=tmp_path / "o.parquet", **settings))
