"""The verb `plan` as a user meets it."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from astarpo.cli import main
from astarpo.config import RunConfig
from astarpo.config.documents import read_document, resources_of, settings_for, shipped_recipes
from astarpo.config.planning import ResourcesConfig
from astarpo.planning.cards import Card
from astarpo.stages import foresight
from astarpo.types import UserError
from astarpo.verbs.run import require_processes
from tools import plans

SHAPES = Path(__file__).parents[1] / "support" / "shapes"


def planned(capsys, *words: object) -> tuple[int, str, str]:
    status = main(["plan", *map(str, words)])
    return status, *capsys.readouterr()


def facts(capsys, *words: object) -> dict:
    return json.loads(planned(capsys, *words, "--json")[1])


@pytest.fixture
def digits(tmp_path) -> list[object]:
    """Flags that give a recipe 32 problems to train on and 8 held out, 3 of which are both."""
    rows = [{"question": f"Item {i}", "answer": f"#### {i}"} for i in range(40)]
    for name, part in (("train", rows[:32]), ("test", rows[29:37])):
        (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in part))
        (tmp_path / name).rename(tmp_path / f"{name}.jsonl")
    return ["--source", tmp_path / "train.jsonl", "--test-source", tmp_path / "test.jsonl"]


def test_a_recipe_that_fits(capsys, digits, policy_path):
    status, text, _ = planned(capsys, "gsm8k", "--model", policy_path, *digits)
    assert status == 0
    assert text.splitlines()[-1] == "fits"
    assert max(map(len, text.splitlines())) <= 80
    assert "also held out: 3 (a run leaves them out of training)" in text
    found = facts(capsys, "gsm8k", "--model", policy_path, *digits)
    assert found["fits"]
    assert found["stages"]["estimate"]["samples"] == 29 * 8
    assert found["stages"]["train"]["steps"] == 3  # 25 x 29 / 256, rounded up
    assert found["problems"] == {
        "read": 32, "held_out": 8, "repeated": 0, "near": 0, "overlap": 3, "near_overlap": 0,
        "too_long": 0,
    }  # fmt: skip


def test_what_does_not_fit_fits_after_what_it_says(capsys):
    words = ["gsm8k", "--model", SHAPES / "Qwen2.5-3B", "--num-problems", 7473]
    status, text, _ = planned(capsys, *words, "--set", "train.gradient_checkpointing=false")
    assert status == 1
    assert "TOO MUCH" in text
    changes = [line for line in text.split("does not fit")[1].splitlines() if "--set" in line]
    assert changes
    found = facts(capsys, *words, "--set", "train.gradient_checkpointing=false")
    for remedy in found["remedies"]:
        flags = [f"--set={name}={str(v).lower()}" for name, v in remedy["changes"].items()]
        then = facts(capsys, *words, "--set=train.gradient_checkpointing=false", *flags)
        assert then["fits"], remedy
        assert max(m["total"] for m in then["memory"].values()) == pytest.approx(remedy["peak"])


def test_seventy_billion_parameters(capsys):
    words = ["gsm8k", "--model", SHAPES / "Qwen2.5-72B", "--num-problems", 7473]
    found = facts(capsys, *words)
    assert not found["fits"]
    # 16 bytes a parameter and the reference's 2: no fewer than 16 cards of 80 GB.
    for remedy in found["remedies"]:
        changes = remedy["changes"]
        assert changes["resources.nodes"] * changes["resources.devices"] >= 16
        assert changes["resources.tensor_parallel"] >= 2
        assert "not yet by astarpo run" in remedy["cost"]


def shipped() -> list[tuple[str, str, list[str]]]:
    """Recipes of published models: each with its own, and with those that its comment names."""
    cases = []
    for name, path in shipped_recipes().items():
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
        if "resources" not in document:
            continue
        cases.append((name, document["model"], []))
        for line in text.splitlines():
            words = line.removeprefix("#").split()
            if words[:1] == ["--model"]:
                cases.append((name, words[1], words[2:]))
    return cases


@pytest.mark.parametrize(("recipe", "model", "flags"), shipped())
def test_recipes_of_published_models_fit_as_they_say(capsys, recipe, model, flags):
    folder = SHAPES / model.split("/")[1]
    status, text, _ = planned(
        capsys, recipe, "--model", folder, "--num-problems", 7500, "--price", 2, *flags
    )
    assert status == 0, text
    assert "cost" in text


def test_the_papers_models_and_those_of_today_are_among_the_recipes():
    models = {(recipe, model.split("/")[1]) for recipe, model, _ in shipped()}
    for size in ("1.5B", "3B", "7B"):
        assert {("gsm8k", f"Qwen2.5-{size}"), ("math", f"Qwen2.5-{size}")} <= models
    for size in ("1.7B", "4B", "8B", "14B"):
        assert ("qwen3", f"Qwen3-{size}-Base") in models
    assert ("long-16k", "DeepSeek-R1-Distill-Qwen-1.5B") in models


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gsm8k --card H1000", "did you mean H100?"),
        ("gsm8k --devices 0", "--devices: Input should be greater than or equal to 1"),
        ("gsm8k --card cpu --devices 8", "say which GPUs they are"),
        ("gsm8k --tensor-parallel 2", "raise devices or nodes there"),
        ("gsm8k --set resources.devicse=2", "did you mean devices?"),
        ("gsm8k --set max_new_tokens=200000", "do not fit the context of"),
        ("gsm9k", "did you mean gsm8k?"),
        ("gsm8k --rates nowhere.json", "cannot read nowhere.json"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, words, said):
    model = SHAPES / "Qwen2.5-1.5B"
    status, out, err = planned(capsys, *words.split(), "--model", model, "--num-problems", 10)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_settings_of_one_stage_are_no_recipe(capsys, tmp_path):
    (tmp_path / "config.json").write_text('{"model": "m", "problems": "p", "out": "o"}')
    status, _, err = planned(capsys, tmp_path / "config.json")
    assert status == 2
    assert "out: all files of a recipe go below --out" in err


def test_answers_that_nobody_can_judge_are_counted(capsys, tmp_path, policy_path):
    rows = [{"prompt": f"Item {i}", "answer": "3" if i % 4 else "three"} for i in range(8)]
    (tmp_path / "p.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "r.toml").write_text('[data]\ntask = "own"\nreward = "gsm8k"\ntest_share = 0.4\n')
    source = ["--source", tmp_path / "p.jsonl", "--test-source", tmp_path / "p.jsonl"]
    status, _, err = planned(capsys, tmp_path / "r.toml", "--model", policy_path, *source)
    assert status == 2
    assert "gsm8k cannot judge" in err
    assert "'three'" in err


def test_resources_hold_for_every_stage_that_knows_them():
    document = read_document(shipped_recipes()["gsm8k"])
    assert resources_of(document, "gsm8k").card == "H100"
    more = document | {"resources": {"engine": "hf", "engine_memory": 0.4, "devices": 2}}
    assert settings_for("train", more, "r")["engine"] == "hf"
    assert settings_for("estimate", more, "r")["engine_memory"] == 0.4
    assert "devices" not in settings_for("train", more, "r")
    own = more | {"train": {"engine_memory": 0.3}}
    assert settings_for("train", own, "r")["engine_memory"] == 0.3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("resources.devices=8", "start it by torchrun --nproc-per-node 8 -m astarpo run"),
        ("resources.tensor_parallel=2", "no engine here spreads a model over devices"),
    ],
)
def test_run_says_which_command_starts_so_many(capsys, tmp_path, changes, said):
    assert main(["run", "gsm8k", "--out", str(tmp_path / "o"), "--set", changes]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"nodes": 8}, "--nnodes 8 --rdzv-backend c10d"),
        ({"devices": 1}, "start it by astarpo run gsm8k --out"),
    ],
)
def test_ranks_of_another_number_are_told_the_command_too(tmp_path, monkeypatch, resources, said):
    started = {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in (started | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    config = RunConfig(recipe="gsm8k", out=tmp_path / "o")
    with pytest.raises(UserError, match=re.escape(said)):
        require_processes(ResourcesConfig(**resources), config)


def test_run_refuses_what_cannot_fit_before_anything_is_loaded(capsys, tmp_path, monkeypatch):
    card = Card("GPU of 80 GiB", 80 * 2**30)
    monkeypatch.setattr(foresight, "find_card", lambda *_: card)
    words = ["run", "gsm8k", "--model", str(SHAPES / "Qwen2.5-7B"), "--out", str(tmp_path / "o")]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "7.6 billion parameters do not fit into 1 x 80.0 GiB" in err
    assert "give --set resources.devices=2" in err
    assert "--set train.lora_rank=32" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "o").exists()
    # With what it says it gets further: to the folder, which holds no weights and no tokenizer.
    assert main([*words, "--set", "train.lora_rank=32", "--source", "none.jsonl"]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_the_page_on_scaling_shows_what_plan_says():
    """Of its blocks the first two: the traces of the others take longer."""
    page = plans.PAGES[0].read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- plan: (.*?) -->\n\n```text\n(.*?)\n```\n", page, re.DOTALL)
    assert len(blocks) == 4
    for words, text in blocks[:2]:
        assert plans.shown(words) == text
