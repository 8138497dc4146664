"""Models and value tables on a stand-in of the hub, and back from it by the cards' own commands."""

import os
import re
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

import astarpo
from astarpo.cli import main
from astarpo.config import TrainConfig
from astarpo.models.folder import fingerprint
from astarpo.reports.cards import model_card
from astarpo.rundir.reader import open_run
from tests.conftest import command
from tests.support.hub import TOKEN, standin_hub


@pytest.fixture(scope="module")
def settings(policy_path, problems_path, table_path):
    return {
        "model": str(policy_path), "problems": problems_path, "values": table_path, "steps": 2,
        "prompts_per_step": 8, "lr": 1e-3, "grade_workers": 1, "device": "cpu",
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("pushed") / "run"
    astarpo.train(TrainConfig(**settings, out=out))
    return out


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with standin_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # The stand-in has no such store.
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def process(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def test_a_model_goes_there_and_comes_back(run, hub, problems_path, tmp_path):
    done = process(*command("push", run, "me/digits"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{hub.address}/me/digits\n"
    files = hub.repositories["model", "me/digits"]
    here = {path.name: path.read_bytes() for path in (run / "model").iterdir()}
    assert files.keys() == here.keys()
    assert {name for name in files if files[name] != here[name]} == {"README.md"}
    assert hub.calls[-1] == "POST /api/models/me/digits/commit/main"
    assert any(call.startswith("PUT /objects/") for call in hub.calls)  # the weights
    assert not hub.private

    code = re.search(r"```python\n(.+?)```", files["README.md"].decode(), re.DOTALL)[1]
    check = "\nassert sum(p.numel() for p in model.parameters()) > 1000"
    done = process(sys.executable, "-c", code + check)
    assert done.returncode == 0, done.stderr


def test_a_table_goes_there_and_comes_back(table_path, run, hub, settings, tmp_path):
    done = process(*command("push", table_path, "me/values", "--private"))
    assert done.returncode == 0, done.stderr
    assert hub.private == {"me/values"}
    files = hub.repositories["dataset", "me/values"]
    sent = {p.name for p in table_path.iterdir() if p.suffix in (".parquet", ".json", ".png")}
    assert files.keys() == {*sent, "README.md"}
    card = files["README.md"].decode()
    code = re.search(r"```python\n(.+?)```", card, re.DOTALL)[1]
    check = "\nassert len(values) == 24 and len(samples) == 24 * 8, (values, samples)"
    done = process(sys.executable, "-c", code + check)
    assert done.returncode == 0, done.stderr

    fetch = re.search(r"^hf (download .+)$", card, re.MULTILINE)[1]
    local = ["--local-dir", str(tmp_path / "values")]
    words = fetch.replace("--local-dir values", "").split()
    done = process(sys.executable, "-m", "huggingface_hub.cli.hf", *words, *local)
    assert done.returncode == 0, done.stderr
    again = TrainConfig(**settings | {"values": tmp_path / "values"}, out=tmp_path / "run")
    assert astarpo.train(again)["completed"]


@pytest.mark.parametrize("token", ["hf_wrong", ""])
def test_who_may_not_write_is_told_so_in_one_line(token, run, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    done = process(*command("push", run, "me/digits"))
    assert done.returncode == 2
    assert "401" in done.stderr
    assert "hf auth login" in done.stderr
    assert done.stderr.count("\n") == 2  # what is sent, and the refusal
    assert ("model", "me/digits") not in hub.repositories or not hub.repositories[
        "model", "me/digits"
    ]


def test_a_hub_that_is_not_there_is_one_line(run, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = process(*command("push", run, "me/digits"))
    assert done.returncode == 2
    assert "the hub did not take it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_prints_the_card_and_sends_nothing(run, table_path, capsys):
    assert main(["push", str(run), "me/digits", "--dry-run"]) == 0
    text = capsys.readouterr().out
    card = model_card(open_run(run), "me/digits")
    assert card in text
    assert "to the model repository me/digits:" in text
    assert main(["push", str(table_path), "me/values", "--dry-run"]) == 0
    assert "V\\* of 24 problems" in capsys.readouterr().out


def test_the_card_is_in_the_model_and_changes_nothing_else(run, policy_path, tmp_path):
    card = ModelCard.load(run / "model" / "README.md")
    assert card.data.library_name == "transformers"
    assert {"astarpo", "astar-po", "reinforcement-learning"} == set(card.data.tags)
    assert card.data.base_model is None  # a folder, which no visitor of the hub has
    text = str(card)
    for told in (
        "A\\*-PO",
        "8 samples",
        "| `lr` | 0.001 |",
        "24 problems of gsm8k",
        "| last step | 2",
    ):
        assert told in text
    for path in (str(policy_path), str(tmp_path.parent), str(run)):
        assert path not in text
    before = fingerprint(str(run / "model"))
    (run / "model" / "README.md").unlink()
    assert fingerprint(str(run / "model")) == before
    (run / "model" / "README.md").write_text(text)


def test_a_hub_models_name_is_in_the_card(run):
    """The base model of the hub is linked; the run's folder is written as if it had been given."""
    config = (run / "config.json").read_text()
    try:
        name = re.search(r'"model": "(.+?)"', config)[1]
        (run / "config.json").write_text(config.replace(name, "Qwen/Qwen2.5-1.5B"))
        card = ModelCard(model_card(open_run(run)))
    finally:
        (run / "config.json").write_text(config)
    assert card.data.base_model == "Qwen/Qwen2.5-1.5B"
    assert "trained from Qwen/Qwen2.5-1.5B by" in card.text
    assert os.sep not in card.text.partition("## Load it")[0].replace(
        "Qwen/Qwen2.5-1.5B", ""
    ).replace("https://arxiv.org/abs/2505.20686", "").replace("ln(pi / pi_ref)", "")


def test_cards_of_equal_runs_are_equal(settings, run, tmp_path):
    out = tmp_path / "elsewhere"
    astarpo.train(TrainConfig(**settings, out=out))
    assert (out / "model" / "README.md").read_bytes() == (run / "model" / "README.md").read_bytes()
