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


PUSHES = """
import os, sys
from astarpo.cli import main
run, table, wrong = sys.argv[1:]
assert main(["push", run, "me/digits"]) == 0
assert main(["push", table, "me/values", "--private"]) == 0
os.environ["HF_TOKEN"] = wrong
sys.stderr.write("-- with another token\\n")
assert main(["push", run, "me/others"]) == 2
"""


@pytest.fixture(scope="module")
def hub():
    with standin_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def ask(hub, tmp_path_factory):
    """Runs Python with the stand-in for its hub."""
    # The stand-in has no store of Xet's kind.
    own = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    own |= {"HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_HUB_OFFLINE": "0"}

    def run_python(*words):
        words = [sys.executable, *map(str, words)]
        return subprocess.run(
            words, capture_output=True, text=True, timeout=300, check=False, env=os.environ | own
        )

    return run_python


@pytest.fixture(scope="module")
def pushed(ask, run, table_path):
    done = ask("-c", PUSHES, run, table_path, "hf_wrong")
    assert done.returncode == 0, done.stderr
    return done


def test_a_model_and_a_table_go_there(pushed, hub, run, table_path):
    assert pushed.stdout.splitlines() == [
        f"{hub.address}/me/digits", f"{hub.address}/datasets/me/values",
    ]  # fmt: skip
    files = hub.repositories["model", "me/digits"]
    here = {path.name: path.read_bytes() for path in (run / "model").iterdir()}
    assert files.keys() == here.keys()
    assert {name for name in files if files[name] != here[name]} == {"README.md"}
    table = hub.repositories["dataset", "me/values"]
    sent = {p.name for p in table_path.iterdir() if p.suffix in (".parquet", ".json", ".png")}
    assert table.keys() == {*sent, "README.md"}
    assert hub.private == {"me/values"}
    assert any(call.startswith("PUT /objects/") for call in hub.calls)  # the weights
    assert sum("/commit/" in call for call in hub.calls) == 2


def test_who_may_not_write_is_told_so_in_one_line(pushed, hub):
    told = pushed.stderr.partition("-- with another token\n")[2].splitlines()
    assert len(told) == 2  # what is sent, and the refusal
    assert told[1].startswith("astarpo: me/others: the hub did not take it")
    assert "401" in told[1]
    assert "hf auth login" in told[1]
    assert not hub.repositories.get(("model", "me/others"))


def test_both_come_back_by_what_their_cards_say(pushed, ask, hub, settings, tmp_path):
    model = hub.repositories["model", "me/digits"]["README.md"].decode()
    table = hub.repositories["dataset", "me/values"]["README.md"].decode()
    codes = [re.search(r"```python\n(.+?)```", card, re.DOTALL)[1] for card in (model, table)]
    checks = [
        "assert sum(p.numel() for p in model.parameters()) > 1000",
        "assert len(values) == 24 and len(samples) == 24 * 8, (values, samples)",
    ]
    done = ask("-c", "\n".join([*codes, *checks]))
    assert done.returncode == 0, done.stderr

    words = re.search(r"^hf (download .+) --local-dir values$", table, re.MULTILINE)[1].split()
    done = ask("-m", "huggingface_hub.cli.hf", *words, "--local-dir", tmp_path / "values")
    assert done.returncode == 0, done.stderr
    again = TrainConfig(**settings | {"values": tmp_path / "values"}, out=tmp_path / "run")
    assert astarpo.train(again).summary["completed"]


def test_a_hub_that_is_not_there_is_one_line(run, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert main(["push", str(run), "me/digits"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("astarpo: me/digits: the hub did not take it")
    assert len(told) == 2


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
