"""Problem files from strangers: what they ask to run does not run unless the user names it too."""

import json
import shutil
import sys
from contextlib import suppress

import datasets
import pyarrow.parquet as pq
import pytest

from astarpo.cli import main
from astarpo.config import EstimateConfig, EvaluateConfig, ImportValuesConfig, TrainConfig
from astarpo.config.documents import read_document, settings_for
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.grading.grader import Grader
from astarpo.tasks import get_task
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Problem, UserError
from astarpo.values.table import ValueTable

ASKED = ["subprocess:getoutput", "shipped.py:f", "shipped:f"]
"""The first runs its column `cmd`; importing the others is enough."""


def write_hostile(function: str) -> None:
    """A problem file in verl's layout, with samples, that asks to run a command of its author's."""
    rows = [
        {
            "data_source": f"reward:{function}",
            "prompt": [{"role": "user", "content": f"Q{i}"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "1"},
            "extra_info": {"id": str(i), "cmd": "touch made"},
            "response_0": "1",
        }
        for i in range(2)
    ]
    pq.write_table(datasets.Dataset.from_list(rows).data.table, "hostile.parquet")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, policy_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "shipped.py").write_text("open('made', 'w')\ndef f(cmd): return [1]\n")
    (tmp_path / "mine.py").write_text("def f(completions, **columns): return [1]\n")
    (tmp_path / "policy").symlink_to(policy_path)
    ValueTable.start(tmp_path / "table", {"seed": 0}, {})
    return tmp_path


SHARED = "--model policy --out new.json --problems hostile.parquet"
VERBS = {
    "data": "data own --source hostile.parquet --out new.json",
    "estimate": f"estimate {SHARED}",
    "train": f"train {SHARED} --values table",
    "evaluate": f"evaluate {SHARED}",
    "import-values": "import-values --model policy --out new.json --source hostile.parquet",
    "dry train": f"train {SHARED} --values table --dry-run",
}
NAMED = {"none": "", "task": "--trust-reward gsm8k", "another": "--trust-reward mine.py:f"}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_and_runs_nothing(verb, asked, here, capsys):
    write_hostile(asked)
    names = ["none"] if verb == "data" else NAMED  # there, --reward replaces what rows ask for
    for name in names:
        assert main(f"{VERBS[verb]} {NAMED[name]}".split()) == 2
        error = capsys.readouterr().err
        assert f"asks to run the function '{asked}'" in error
        flag = "--reward" if verb == "data" else "--trust-reward"
        assert f"give {flag} FILE.py:NAME" in error
        assert error.count("\n") == 1
    assert not (here / "made").exists()
    assert "shipped" not in sys.modules
    assert not (here / "new.json").exists()


@pytest.mark.parametrize("asked", ASKED)
def test_it_would_run_if_it_were_let_pass(asked, here):
    """What the tests above refuse is real: named by the user, it runs."""
    write_hostile(asked)
    problems = read_problems(here / "hostile.parquet")
    with pytest.raises(UserError, match="asks to run"):
        verifier_fingerprint(problems)
    assert not (here / "made").exists()
    with Grader(1, 5.0) as grader, pytest.raises(UserError, match="asks to run"):
        grader.grade(problems, ["1"] * 2)
    assert not (here / "made").exists()
    verifier_fingerprint(problems, asked)
    with Grader(1, 5.0, asked) as grader:
        grader.grade(problems, ["1"] * 2)
    assert (here / "made").exists()
    sys.modules.pop("shipped", None)


def test_the_message_stays_one_plain_line(here, capsys):
    write_hostile("x:\x1b[2J\nall is well" + "y" * 10_000)
    assert main(VERBS["evaluate"].split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error
    assert len(error) < 500


def test_named_functions_judge_in_every_verb(here):
    write_hostile("mine.py:f")
    limits = "--max-new-tokens 8 --grade-workers 1 --trust-reward mine.py:f --limit 1"
    shared = f"--model policy --problems hostile.parquet {limits}"
    imported = f"import-values --model policy --out v --source hostile.parquet {limits}"
    assert main(imported.split()) == 0
    assert ValueTable(here / "v").rewards(read_problems(here / "hostile.parquet", 1)).all()
    estimated = f"estimate {shared} --samples 1 --out w --allow-truncated"
    assert main(estimated.split()) == 0
    limits = limits.replace("--max-new-tokens 8 ", "")
    trained = f"train --model policy --problems hostile.parquet {limits} --values w --out r"
    assert main(f"{trained} --steps 1 --prompts-per-step 2 --minibatches 1".split()) == 0
    assert json.loads((here / "r" / "config.json").read_text())["trust_reward"] == "mine.py:f"
    assert main(f"evaluate {shared} --samples 0 --out e.json".split()) == 0
    assert json.loads((here / "e.json").read_text())["scores"]["pass_at_1"]["value"] == 1


@pytest.mark.parametrize("reward", ["gsm8k", "mine.py:f"])
def test_recipes_share_the_name_at_their_top_level(here, reward):
    """What judges is a setting of `data`; a function is also asked for in every later stage."""
    (here / "r.toml").write_text(f'reward = "{reward}"\n')
    document = read_document(here / "r.toml")
    assert settings_for("data", document, "r.toml") == {"reward": reward}
    asked = {"trust_reward": reward} if reward == "mine.py:f" else {}
    for verb in ("estimate", "train", "evaluate", "import-values"):
        assert settings_for(verb, document, "r.toml") == asked


RECIPE = """
model = "policy"
max_new_tokens = 4
{top}
[data]
task = "own"
source = "mine.jsonl"
limit = 4
{data}
[test]
{test}
[estimate]
samples = 1
allow_truncated = true
[train]
steps = 1
prompts_per_step = 2
minibatches = 1
[evaluate]
samples = 0
"""


def write_recipe(top="", data="", test="") -> None:
    with open("recipe.toml", "w") as file:
        file.write(RECIPE.format(top=top, data=data, test=test))
    with open("mine.jsonl", "w") as file:
        file.writelines(
            f'{{"prompt": "Q{i}", "answer": "{i}", "cmd": "touch made"}}\n' for i in range(32)
        )


RECIPE_VERBS = {
    "run": "run recipe.toml --out o",
    "compare": "compare recipe.toml --out o",
    "sweep": "sweep beta1 recipe.toml --out o",
    "data": "data --config recipe.toml --out p.parquet",
    "estimate": "estimate --config recipe.toml --problems p.parquet --out o",
    "train": "train --config recipe.toml --problems p.parquet --values table --out o",
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("verb", RECIPE_VERBS)
def test_a_recipes_function_runs_only_if_the_user_names_it(verb, asked, here, capsys):
    places = [{"top": f'reward = "{asked}"'}]
    places += [{"data": f'reward = "{asked}"'}] if verb in ("run", "compare", "data") else []
    for place in places:
        write_recipe(**place)
        for flag in ("", " --trust-reward mine.py:f") if verb in ("run", "compare") else ("",):
            assert main(f"{RECIPE_VERBS[verb]}{flag}".split()) == 2
            error = capsys.readouterr().err
            assert f"recipe.toml: asks to run the function '{asked}'" in error
            flag = "--reward" if verb == "data" else "--trust-reward"
            assert f"give {flag} {asked}" in error
            assert error.count("\n") == 1
    assert not (here / "made").exists()
    assert "shipped" not in sys.modules
    assert not (here / "o").exists()


@pytest.mark.parametrize("place", ["top", "data"])
def test_a_recipes_function_that_is_named_judges_every_stage(place, here):
    write_recipe(**{place: 'reward = "mine.py:f"'})
    assert main(["run", "recipe.toml", "--out", "o", "--trust-reward", "mine.py:f"]) == 0
    summary = json.loads((here / "o" / "summary.json").read_text())
    assert summary["trained"]["pass_at_1"] == 1
    assert summary["kl"] is None  # No samples, no KL: and nothing fails for it after training.
    assert sum(summary["num_problems"].values()) == 8
    if place == "top":  # As version 0.1.0 wrote it, whose `reward` was the permission too.
        kept = json.loads((here / "o" / "recipe.json").read_text())
        del kept["trust_reward"]
        (here / "o" / "recipe.json").write_text(json.dumps(kept))
        assert main(["run", "recipe.toml", "--out", "o", "--trust-reward", "mine.py:f"]) == 0


@pytest.mark.parametrize(
    "place", [{"top": 'out = "mine.py"'}, {"data": 'out = "mine.py"'}, {"test": 'out = "mine.py"'}]
)
@pytest.mark.parametrize("verb", ["run", "compare"])
def test_a_recipe_names_no_place_to_write_to(verb, place, here, capsys):
    write_recipe(**place)
    before = (here / "mine.py").read_text()
    assert main(RECIPE_VERBS[verb].split()) == 2
    assert "all files of a recipe go below --out: leave it out" in capsys.readouterr().err
    assert (here / "mine.py").read_text() == before


def test_a_file_does_not_ask_to_overwrite(here, capsys):
    write_recipe(top='overwrite = true\nout = "mine.py"', data='reward = "gsm8k"')
    assert main(["data", "--config", "recipe.toml"]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert (here / "mine.py").read_text().startswith("def f")


def test_functions_are_given_as_such_too():
    kinds = [EstimateConfig, TrainConfig, EvaluateConfig, ImportValuesConfig]
    given = {"model": "m", "problems": "p", "values": "v", "source": "s", "out": "o"}
    for kind in kinds:
        settings = {name: given[name] for name in given if name in kind.model_fields}
        assert kind(**settings, trust_reward=shutil.which).trust_reward == "shutil:which"


@pytest.mark.parametrize(
    "name", ["shipped", "shipped:f", ".shipped", "../shipped", "..shipped", "", "games.shipped"]
)
def test_names_of_reasoning_gym_import_nothing_else(name, here):
    with pytest.raises(UserError, match="no such data set"):
        get_task(f"reasoning_gym:{name}")
    assert not (here / "made").exists()


def test_entries_of_reasoning_gym_are_not_run(here):
    """This scorer of the library evaluates the reference answer, which comes with the problem.

    The data set is refused for it, and a worker that judged all the same would not run the answer.
    """
    entry = {"answer": "open('made', 'w') and ['1']", "metadata": {"sorted_numbers": ["1"]}}
    prompt = ({"role": "user", "content": "Q"},)
    problem = Problem("p", "reasoning_gym:number_sorting", prompt, json.dumps(entry))
    with pytest.raises(UserError, match="runs answers as code, which is refused here"):
        verifier_fingerprint([problem])
    with Grader(1, 5.0) as grader, pytest.raises(UserError, match="take another data set"):
        grader.grade([problem], ["<answer>['1']</answer>"])
    assert not (here / "made").exists()
    with suppress(KeyError):  # outside of a worker it would be
        get_task(problem.data_source).grade("<answer>['1']</answer>", problem.ground_truth)
    assert (here / "made").exists()
