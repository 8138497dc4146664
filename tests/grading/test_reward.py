"""A user's reward functions: what they are given, what they may do, how they fail."""

import dataclasses
import logging
import subprocess
import sys
import textwrap

import pytest

from astarpo.config import DataConfig
from astarpo.grading import pool
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.grading.grader import Grader
from astarpo.grading.reward import RewardFunction
from astarpo.tasks.own import PROMPT_IS_TEXT
from astarpo.types import Problem, UserError, Verdict

REWARDS = """
import asyncio, collections, math, os, time
from dataclasses import dataclass

import numpy as np

@dataclass
class Made:  # compiles text, as many a library does
    reward: float

Pair = collections.namedtuple("Pair", "a b")

def length(prompts, completions, **columns):
    return [float(len(completion)) for completion in completions]

def chat(prompts, completions, **columns):
    assert prompts == [[{"role": "system", "content": "Count."}, {"role": "user", "content": "Q"}]]
    (message,) = completions[0]
    return [len(message["content"]) if message["role"] == "assistant" else -9]

def gold(completions, ground_truth, tags, note):
    return [eval(f"{c} == {g} + len({t}) + ({n} is None)")
            for c, g, t, n in zip(completions, ground_truth, tags, note)]

def penalty(prompts, completions, **columns):
    return np.array([-2.5], dtype=np.float32)

async def awaited(prompts, completions, **columns):
    await asyncio.sleep(0)
    return [1]

def absent(**columns):
    return [None]

def odd(prompts, completions, **columns):
    do = {
        "hang": lambda: time.sleep(60),
        "loop": lambda: [0 for _ in iter(int, 1)],
        "raise": lambda: 1 / 0,
        "exit": lambda: os._exit(3),
        "quit": lambda: exit(0),
        "none": lambda: [None],
        "nothing": lambda: None,
        "nan": lambda: [math.nan],
        "inf": lambda: [math.inf],
        "two": lambda: [1.0, 1.0],
        "number": lambda: 1.0,
        "text": lambda: ["1"],
        "word": lambda: "1",
        "print": lambda: print("{}\\n" * 5) or [0.25],
    }
    return do[completions[0]]()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards")
    (path / "rewards.py").write_text(REWARDS)
    (path / "helper.py").write_text("BONUS = 3.0\n")
    (path / "in_module.py").write_text(
        "import helper\nclass R:\n  @staticmethod\n  def f(**columns): return [helper.BONUS]\n"
    )
    return path


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="module")
def grader():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pool, "WALL_LIMIT_S", 2.0)  # the usual 30 are long for a test
        grader = Grader(num_workers=2, timeout_s=0.5)
    with grader:
        yield grader


def problem(function, *, text=True, file="rewards.py", **columns) -> Problem:
    prompt = ({"role": "user", "content": "Q"},)
    if not text:
        prompt = ({"role": "system", "content": "Count."}, *prompt)
    extra = {PROMPT_IS_TEXT: True, **columns} if text else columns
    return Problem("p", f"reward:{file}:{function}", prompt, "2", extra=extra)


def named(grader, asked: Problem) -> Problem:
    """Lets its function pass: a grader takes one, but a single pool serves all these tests."""
    grader._permitted.add(asked.data_source)
    return asked


def judge(grader, asked, response) -> Verdict:
    return grader.grade([named(grader, asked)], [response])[0]


def test_any_finite_number_is_a_reward(grader):
    assert judge(grader, problem("length"), "four") == Verdict(4.0, None, "ok")
    assert judge(grader, problem("penalty"), "").reward == -2.5
    assert judge(grader, problem("awaited"), "").reward == 1.0


def test_conversational_prompts_come_with_conversational_completions(grader):
    assert judge(grader, problem("chat", text=False), "four").reward == 4.0


def test_columns_come_by_name_and_only_those_asked_for(grader):
    """The user's own code may also evaluate text: only verifiers that ship may not."""
    asked = problem("gold", tags=["a", "b"], note=None, unused=1)
    assert [judge(grader, asked, r).reward for r in ("5", "4")] == [1.0, 0.0]


def test_what_libraries_map_is_not_memory_that_is_used(grader, folder):
    """PyTorch for GPUs maps more than a worker may use: a function that imports it has to work."""
    (folder / "memory.py").write_text(
        "import mmap\n"
        "mapped = mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)\n"
        "def f(completions, **columns): return [float(len(bytearray(int(completions[0]) << 20)))]\n"
    )
    asked = problem("f", file="memory.py")
    assert judge(grader, asked, "1").reward == 2**20
    assert judge(grader, asked, "6000") == Verdict(0.0, None, "error")


@pytest.mark.parametrize("file", ["in_module.py", "in_module"])
def test_modules_and_files_find_their_neighbours(grader, file):
    assert judge(grader, problem("R.f", file=file), "").reward == 3.0


def test_what_fails_costs_its_own_answer(grader, caplog):
    kinds = [
        "hang", "print", "raise", "exit", "quit", "none", "nothing", "nan", "inf", "two", "number",
        "text", "word", "loop", "unknown", "print",
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING, logger="astarpo"):
        verdicts = grader.grade([named(grader, problem("odd"))] * len(kinds), kinds)
    expected = {"hang": "timeout", "loop": "timeout", "print": "ok"}
    assert [v.status for v in verdicts] == [expected.get(kind, "error") for kind in kinds]
    assert [v.reward for v in verdicts] == [0.25 if kind == "print" else 0.0 for kind in kinds]
    assert len(caplog.records) == 1
    assert "odd failed on an answer" in caplog.text


def test_none_is_told_as_what_it_is(grader, caplog):
    with caplog.at_level(logging.WARNING, logger="astarpo"):
        assert judge(grader, problem("absent"), "").status == "error"
    assert "returned None (not applicable)" in caplog.text


def test_shipped_verifiers_stay_guarded_beside_a_users(grader):
    math = Problem("m", "math", ({"role": "user", "content": "Q"},), r"\frac{x}{2}")
    verdicts = grader.grade(
        [named(grader, problem("length")), math] * 3, ["four", r"\boxed{x/2}"] * 3
    )
    assert [v.reward for v in verdicts] == [4.0, 1.0] * 3


GUARD = """
import json, sys
import astarpo.tasks
from astarpo.grading import worker
verifiers = {}
sys.addaudithook(worker._refuse_code_from_text)
worker._load(verifiers, {"load": "reward:rewards.py:gold", "path": [], "own_rewards": True})
asked = {"prompt": "Q", "columns": {"ground_truth": "2", "tags": [], "note": 1}}
request = {"verifier": "reward:rewards.py:gold", "response": "2", "ground_truth": json.dumps(asked)}
print(worker._judge(verifiers, request)["reward"])
try:
    worker._judge(verifiers, request | {"response": "no code"})
except SyntaxError:
    eval("print('unguarded')")
"""


def test_the_guard_is_off_inside_a_users_function_alone(folder):
    done = subprocess.run(
        [sys.executable, "-c", GUARD], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1.0\n", done.stderr
    assert done.stderr.splitlines()[-1].startswith("PermissionError")


def test_the_source_file_is_part_of_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "r.py"
    file.write_text("def f(**c): return [0]\n")
    asked = [problem("f", file="r.py")]
    before = verifier_fingerprint(asked, "r.py:f")
    assert list(before) == ["verifier of reward:r.py:f"]
    assert verifier_fingerprint(asked, "r.py:f") == before
    with Grader(1, 5.0, "r.py:f") as one:
        assert one.grade(asked, [""])[0].reward == 0.0
        file.write_text("def f(**c): return [1]\n")
        assert verifier_fingerprint(asked, "r.py:f") != before
        one._pool._end(one._pool._workers[0])  # the next worker would load the new one
        with pytest.raises(UserError, match="changed while answers were judged"):
            one.grade(asked, [""])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:f", "no such file"),
        ("rewards.py:f", "has no attribute 'f'"),
        ("rewards.py:math", "is not a callable object"),
        ("rewards.py", "FILE.py:NAME or MODULE:NAME"),
        ("no_such_module:f", "No module named"),
        ("math:sqrt", "has no source file"),
        ("broken.py:f", "SyntaxError"),
        ("leaves.py:f", "SystemExit"),
    ],
)
def test_functions_that_do_not_load(folder, name, message):
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "leaves.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(UserError, match=message) as caught:
        RewardFunction(f"reward:{name}")
    assert "\n" not in str(caught.value)


def test_a_column_that_a_problem_lacks_is_named_up_front():
    with pytest.raises(UserError, match=r"needs note, tags, which problem p lacks"):
        verifier_fingerprint([problem("gold")], "rewards.py:gold")
    whole = dataclasses.replace(problem("gold"), extra={"tags": [], "note": None})
    assert verifier_fingerprint([whole], "rewards.py:gold")


@pytest.mark.parametrize("reward", [None, "gsm8k", "other.py:f", "reward:unnamed.py:f", "f"])
def test_what_the_user_did_not_name_is_not_even_imported(grader, folder, reward):
    (folder / "unnamed.py").write_text("open('made', 'w')\ndef f(**columns): return [1]\n")
    asked = problem("f", file="unnamed.py")
    with pytest.raises(UserError, match=r"asks to run the function 'unnamed\.py:f'") as caught:
        verifier_fingerprint([asked], reward)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"asks to run the function 'unnamed\.py:f'"):
        grader.grade([asked], [""])
    assert not (folder / "made").exists()


@pytest.mark.parametrize("reward", ["gsm8k", "nowhere.py:f", "no such task", "os:system"])
def test_a_reward_that_no_problem_asks_for_is_nobodys_business(reward):
    math = Problem("m", "math", ({"role": "user", "content": "Q"},), "2")
    assert verifier_fingerprint([math], reward) == verifier_fingerprint([math])


def test_python_functions_are_named(folder):
    import in_module

    config = DataConfig(task="own", out="o", reward=in_module.R.f)
    assert config.reward == "in_module:R.f"

    def inner(**columns):
        return [0]

    script = {"__name__": "__main__"}
    exec(textwrap.dedent("def f(**c): return [0]"), script)
    for unfit in (inner, lambda **c: [0], script["f"]):
        with pytest.raises(ValueError, match="top level of a file of its own"):
            DataConfig(task="own", out="o", reward=unfit)
