"""A model folder's own Python code never runs, whatever a terminal answers."""

import io
import json
import shutil

import pytest

from astarpo.runtime.files import write_json
from tests.conftest import run_here

MODULE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlamaConfig as Own, LlamaForCausalLM as OwnModel
from transformers import PreTrainedTokenizerFast as OwnTokenizer
"""


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_a_folders_own_code_does_not_run(tmp_path, policy_path, problems_path, part, monkeypatch):
    folder, marker = tmp_path / "model", tmp_path / "it-ran"
    shutil.copytree(policy_path, folder)
    (folder / "own.py").write_text(MODULE.format(marker=str(marker)))
    settings = json.loads((folder / part).read_text())
    if part == "config.json":
        settings |= {"model_type": "own"}
        settings["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}
    else:
        settings |= {"tokenizer_class": "OwnTokenizer"}
        settings["auto_map"] = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
    write_json(folder / part, settings)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    done = run_here(
        "evaluate", "--model", folder, "--problems", problems_path, "--out", tmp_path / "out.json",
        "--samples", 0, "--max-new-tokens", 2, "--device", "cpu",
    )  # fmt: skip
    assert not marker.exists()
    assert "Traceback" not in done.stderr
    if part == "config.json":  # without its code transformers knows the tokenizer, not the model
        assert done.returncode == 2
        assert "code of its own, which is never run" in done.stderr
