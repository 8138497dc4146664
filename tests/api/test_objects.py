"""Both stages and scores on objects in memory: rows, functions, tables, runs."""

import json
import math
import subprocess
import sys

import datasets
import pandas
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM

import astarpo
from astarpo.cli import main
from astarpo.config import EstimateConfig
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import UserError, Verdict
from astarpo.values.estimators import Plugin
from tests.conftest import digit_problems
from tests.support.objects import ROWS, first_digit

LIMITS = {"max_new_tokens": 12, "allow_truncated": True, "device": "cpu", "grade_workers": 1}
STEPS = {"steps": 4, "prompts_per_step": 4, "minibatches": 1, "device": "cpu", "grade_workers": 1}
STEPS |= {"checkpoint_every": 1}


@pytest.fixture(scope="module")
def model(policy_path) -> str:
    return str(policy_path)


@pytest.fixture(scope="module")
def table(model, tmp_path_factory) -> astarpo.ValueTable:
    out = tmp_path_factory.mktemp("objects") / "values"
    reward = first_digit(0.5, -1.0)
    return astarpo.estimate(
        model=model, problems=ROWS, samples=4, reward=reward, out=out, **LIMITS
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(model, table, tmp_path_factory):
    """A run with the rows that its callback was shown."""
    seen = []
    out = tmp_path_factory.mktemp("objects") / "run"
    found = astarpo.train(
        model=model, problems=ROWS, values=table, reward=first_digit(0.5, -1.0), out=out,
        on_step=seen.append, **STEPS,
    )  # fmt: skip
    return found, seen


def test_a_table_from_rows_and_a_function(table):
    rewards = table.samples(["reward"])["reward"].to_pylist()
    assert set(rewards) == {0.5, -1.0}
    problems = read_problems(table.path / "problems.parquet")
    assert [p.id for p in problems] == [f"rows/train/{i}" for i in range(12)]
    assert {p.data_source for p in problems} == {
        "reward:tests.support.objects:first_digit.<locals>.score"
    }
    found, again = table.values(), table.values(problems, Plugin(0.5))
    assert found.v_star_P.tolist() == again.v_star_P.tolist()
    assert found.problem_ids == tuple(p.id for p in problems)
    frame = table.to_pandas()
    assert list(frame.columns[:5]) == ["problem_id", "n", "mean_reward", "v_star", "v_star_se"]
    written = pq.read_table(table.path / "values.parquet").to_pandas()
    pandas.testing.assert_frame_equal(
        frame[written.columns[:5]], written.iloc[:, :5], check_dtype=False
    )
    mean = table.values(estimator=Plugin(math.inf))
    assert mean.v_star_P == pytest.approx(frame["mean_reward"].to_numpy())
    assert repr(table) == (
        f"<value table {table.path}: 12 problems, 4 samples of each by "
        f"{table.manifest['model']}; values() for V*, to_pandas() for the rows>"
    )


def test_the_same_call_finds_nothing_to_do(model, table):
    shards = sorted(table.path.glob("samples-*"))
    more = {"samples": 4, "reward": first_digit(0.5, -1.0), "out": table.path}
    astarpo.estimate(model=model, problems=ROWS, **more, **LIMITS)
    assert sorted(table.path.glob("samples-*")) == shards
    with pytest.raises(UserError, match=r"is 'code .*' in the table and 'code .*' here"):
        astarpo.estimate(model=model, problems=ROWS, **more | {"reward": first_digit()}, **LIMITS)


def test_a_run_is_an_object(run):
    found, seen = run
    assert [row["step"] for row in seen] == [1, 2, 3, 4]
    assert list(found.metrics) == seen
    assert found.metrics.to_pandas()["reward"].tolist() == [row["reward"] for row in seen]
    assert found.summary["completed"]
    AutoModelForCausalLM.from_pretrained(found.model_path)
    assert found.report().name == "report.html"
    with pytest.raises(UserError, match=r"exists already; .* or replace it with --overwrite"):
        found.report(out=found.path / "report.html")
    assert found.report(out=found.path / "report.html", overwrite=True).exists()
    assert repr(found).startswith(f"<run {found.path}: finished, 4 steps, reward -")
    assert astarpo.Run(found.path).config["trust_reward"].endswith("<locals>.score")
    assert len(found.evaluations) == 0


def test_a_run_is_not_resumed_with_another_function(model, run, table):
    found, _ = run
    words = {"model": model, "problems": ROWS, "out": found.path, "resume": True}
    words |= STEPS | {"steps": 6}
    with pytest.raises(UserError, match="judge them anew"):
        astarpo.train(**words, values=table, reward=first_digit(2.0))
    config = json.loads((found.path / "config.json").read_text())
    assert config["problems"] == str(found.path / "problems.parquet")


def test_a_run_without_a_table_is_not_resumed_with_another_function(model, tmp_path):
    words = {"model": model, "problems": ROWS, "algorithm": "rebel", "out": tmp_path / "run"}
    words |= STEPS | {"max_new_tokens": 8, "health": "off"}
    with pytest.raises(ZeroDivisionError):  # what a callback raises passes through
        astarpo.train(**words, reward=first_digit(), on_step=lambda row: 1 // (2 - row["step"]))
    left = astarpo.Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"has no trained model yet .* and resume=True"):
        _ = left.model_path
    more = words | {"resume": True}
    with pytest.raises(UserError, match="not what the run began with: verifier of reward:tests"):
        astarpo.train(**more, reward=first_digit(2.0))
    with pytest.raises(UserError, match="not what the run began with: the problems"):
        astarpo.train(**more | {"problems": ROWS[:-1]}, reward=first_digit())
    assert len(read_problems(tmp_path / "run" / "problems.parquet")) == 12

    def stop(row):
        if row["step"] == 3:
            raise astarpo.StopTraining

    ended = astarpo.train(**more, reward=first_digit(), on_step=stop)
    assert len(ended.metrics) == 3
    assert ended.summary["completed"]
    assert ended.model_path.is_dir()
    assert len(astarpo.train(**more, reward=first_digit()).metrics) == 4


def test_scores_by_name(model, run, tmp_path):
    found, _ = run
    scores = astarpo.evaluate(
        model=found, problems=ROWS, reward=first_digit(), samples=2, max_new_tokens=12,
        out=tmp_path / "scores.json", reference=model, device="cpu",
    )  # fmt: skip
    assert set(scores) == {"pass_at_1", "avg_at_2", "pass_at_2", "kl", "kl_per_token"}
    written = json.loads((tmp_path / "scores.json").read_text())
    assert scores["avg_at_2"].value == written["scores"]["avg_at_2"]["value"]
    assert scores.details == written
    assert scores.to_pandas().loc["avg_at_2", "value"] == scores["avg_at_2"].value
    assert len(read_problems(tmp_path / "scores-problems.parquet")) == 12
    with pytest.raises(UserError, match="no score 'avg_at_4'; there are pass_at_1, avg_at_2"):
        _ = scores["avg_at_4"]
    assert "avg_at_4" not in scores


def test_a_function_that_hangs_is_killed(model, tmp_path):
    def forever(completions, digit, **columns):
        while digit == ["0"]:
            pass
        return [1.0]

    table = astarpo.estimate(
        model=model, problems=ROWS[:3], samples=1, reward=forever, out=tmp_path / "values",
        **LIMITS | {"grade_timeout": 0.5},
    )  # fmt: skip
    statuses = table.samples(["problem_id", "status"]).to_pandas().set_index("problem_id")["status"]
    assert statuses.to_dict() == {
        "rows/train/0": "timeout", "rows/train/1": "ok", "rows/train/2": "ok",
    }  # fmt: skip


def test_no_file_brings_a_function(model, table, tmp_path, capsys):
    """Neither a problem file nor a config that names one, nor the table that it judged."""
    problems = table.path / "problems.parquet"
    with pytest.raises(UserError, match=r"asks to run the function 'tests.support.objects:first"):
        astarpo.estimate(model=model, problems=problems, out=tmp_path / "v", **LIMITS)
    name = "tests.support.objects:first_digit.<locals>.score"
    words = ["--model", model, "--problems", str(problems), "--out", str(tmp_path / "v")]
    assert main(["estimate", *words, "--trust-reward", name]) == 2
    assert "was given in Python and is in no file: give it again there, as reward=" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "v").exists()
    more = {"reward": first_digit(0.5, -1.0), "samples": 4, "out": table.path}
    astarpo.estimate(model=model, problems=problems, **more, **LIMITS)  # as the message says


def test_problems_in_every_shape(model, tmp_path):
    write_problems(tmp_path / "p.parquet", digit_problems(3))
    shapes = [
        digit_problems(3),
        str(tmp_path / "p.parquet"),
        datasets.Dataset.from_list([{"prompt": "1 + 1 =", "answer": 2}] * 3),
        astarpo.load_problems(
            [{"q": "1 + 1 =", "a": 2}] * 3, prompt_column="q", answer_column="a", reward="gsm8k"
        ),
    ]
    for number, problems in enumerate(shapes):
        judge = {"reward": "gsm8k"} if number == 2 else {}
        out = tmp_path / str(number)
        table = astarpo.estimate(
            model=model, problems=problems, samples=1, out=out, **judge, **LIMITS
        )
        assert len(table.values().v_star_P) == 3
        assert (out / "problems.parquet").exists() == (number != 1)


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        (pandas.DataFrame(ROWS), r'frame\.to_dict\("records"\)'),
        ([], "there are none in what is given"),
        (5, "a int holds no rows: give a list of dicts"),
        ({"train": ROWS}, "a dict holds no rows: give one split of it"),
        ("gsm8k", r'for the task of this name give astarpo\.load_problems\("gsm8k"\)'),
        ("none.parquet", "no such file: none.parquet"),
        ([1, 2], "problems: 1 is no row: give a dict of columns for each"),
        (
            [{"question": "Q"}],
            r"row 0: no column 'prompt' .* name it with load_problems\(rows, prompt_column=",
        ),
    ],
)
def test_what_holds_no_problems_is_refused(problems, said, tmp_path):
    with pytest.raises(UserError, match=said):
        astarpo.estimate(model="m", problems=problems, reward=first_digit(), out=tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_wrong_objects_are_told(policy, tmp_path, problems_path):
    shared = {"model": "m", "problems": problems_path, "out": tmp_path / "v"}
    with pytest.raises(UserError, match="model: give a folder, a hub name or a Run, not a Qwen2"):
        astarpo.estimate(**shared | {"model": policy.model})
    with pytest.raises(UserError, match="reward: a int judges nothing: give a function"):
        astarpo.estimate(**shared, reward=5)
    with pytest.raises(UserError, match="on_step: a function"):
        astarpo.train(**shared, on_step=5)
    with pytest.raises(
        UserError, match=r"these answers\? Give load_problems\(rows, reward=\.\.\.\)"
    ):
        astarpo.estimate(**shared | {"problems": ROWS})
    with pytest.raises(UserError, match="unknown task or data source 'gsm9k'"):
        astarpo.estimate(**shared, reward="gsm9k")
    with pytest.raises(UserError, match=r"problems and eval_problems are judged by .*: give"):
        astarpo.train(
            **shared | {"problems": astarpo.load_problems(ROWS, reward=first_digit())},
            eval_problems=astarpo.load_problems(ROWS, reward=lambda completions, **columns: [1.0]),
        )


def test_a_config_does_as_well(model, problems_path, tmp_path):
    out = tmp_path / "values"
    table = astarpo.estimate(
        EstimateConfig(model=model, problems=problems_path, samples=1, out=out, **LIMITS)
    )
    assert table.path == out
    exported = astarpo.export(
        table=table, problems=read_problems(problems_path), out=tmp_path / "x.parquet"
    )
    assert pq.read_table(exported).num_rows == 24


def test_a_folder_of_its_own_is_named_in_the_log(model, tmp_path):
    program = (
        "import astarpo\n"
        f"table = astarpo.estimate(model={model!r}, problems=[{{'prompt': 'Q'}}], samples=1,\n"
        "    reward=lambda completions, **columns: [1.0], max_new_tokens=4, device='cpu',\n"
        "    allow_truncated=True)\n"
        "print(table.path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    place = done.stdout.strip()
    assert place.startswith("runs/estimate-20")
    assert f"estimate: writes to {place} (another place: out=)" in done.stderr
    assert "solve rate of 1 problems over 1 samples" in done.stderr
    assert (tmp_path / place / "values.parquet").exists()


class Echo:
    """A task of the user's: repeat a word."""

    name = "echo"
    aliases = ()
    version = "1"
    isolated = True
    gold_form = "one word"

    def problems(self, *, source, split, size, seed):
        for problem in digit_problems(3):
            yield type(problem)(problem.id, self.name, problem.prompt, problem.ground_truth)

    def can_judge(self, ground_truth):
        return ground_truth.isalnum()

    def grade(self, response, ground_truth):
        return Verdict(0.75, response[:1] or None, "ok")


@pytest.mark.parametrize("isolated", [True, False])
def test_a_task_of_ones_own(model, isolated, tmp_path, monkeypatch):
    monkeypatch.setattr(Echo, "isolated", isolated)
    problems = astarpo.load_problems(Echo if isolated else Echo())
    assert repr(problems).startswith("<3 problems judged by echo; the first: ")
    table = astarpo.estimate(
        model=model, problems=problems, samples=2, out=tmp_path / "v", **LIMITS
    )
    assert table.to_pandas()["v_star"].tolist() == [0.75] * 3
    with pytest.raises(UserError, match="unknown task or data source 'echo'"):
        astarpo.evaluate(
            model=model, problems=tmp_path / "v" / "problems.parquet", out=tmp_path / "e.json"
        )

    class Gsm8k(Echo):
        name = "gsm8k"

    with pytest.raises(UserError, match="gsm8k: a task of this name ships"):
        astarpo.load_problems(Gsm8k)
    with pytest.raises(UserError, match="Verdict: cannot be made without arguments"):
        astarpo.load_problems(Verdict)
    with pytest.raises(UserError, match="object: is no task, for it has no name, aliases"):
        astarpo.load_problems(object)


@pytest.mark.parametrize(
    ("verb", "setting"), [("chat", "run"), ("push", "source"), ("recipes", "name")]
)
def test_what_comes_without_a_name_is_told_one_that_has_to_be_given(verb, setting):
    with pytest.raises(UserError, match=f"give its settings by name, such as {setting}=\\.\\.\\."):
        getattr(astarpo, verb)("something")
