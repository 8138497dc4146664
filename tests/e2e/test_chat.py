"""A talk with a run's policies: with piped lines, as a process in a terminal, and in one call."""

import io
import os
import pty
import re
import select
import shutil
import subprocess

import pytest

import astarpo
from astarpo.cli import main
from astarpo.config import TrainConfig
from astarpo.types import UserError
from tests.conftest import command, run_here


@pytest.fixture(scope="module")
def run(policy_path, problems_path, table_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("talk") / "run"
    settings = {"steps": 2, "prompts_per_step": 8, "lr": 1e-3, "grade_workers": 1}
    files = {"model": str(policy_path), "problems": problems_path, "values": table_path}
    astarpo.train(TrainConfig(**settings, **files, device="cpu", checkpoint_every=1, out=out))
    return out


def test_a_problem_is_answered_by_both_and_judged(run, capsys):
    words = ["chat", str(run), "--problem", "digits/train/4", "--samples", "2", "--device", "cpu"]
    assert main(words) == 0
    first = capsys.readouterr()
    assert "Name a number. Item 4:" in first.out
    assert "digits/train/4   right: 1   V* " in first.out
    assert "reference, mean reward " in first.out
    assert "trained, mean reward " in first.out
    assert first.out.count("-> ") == 4
    assert main(words) == 0
    assert capsys.readouterr().out == first.out
    assert main([*words, "--seed", "1"]) == 0
    assert capsys.readouterr().out != first.out


def test_lines_of_a_pipe_are_asked_one_by_one(run, monkeypatch):
    lines = [
        "/random",
        "Item 99:",
        "Item 99: => 3",
        "/rndom",
        "/id digits/train/x",
        "",
        "/quit",
        "no",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    done = run_here("chat", run, "--device", "cpu", "--max-new-tokens", 4)
    assert done.returncode == 0
    assert done.stdout.count("┃ reference") == 3
    assert "V* " in done.stdout
    assert "typed   right: 3" in done.stdout
    assert "add => and the right answer" in done.stdout
    assert "/rndom: no such command; did you mean /random?" in done.stderr
    assert "/id: digits/train/x: no problem of this run has that id" in done.stderr
    assert "problem>" not in done.stdout


def test_in_a_terminal_it_asks_and_ctrl_d_ends_it(run):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command("chat", run, "--device", "cpu"), stdin=follower, stdout=follower, stderr=follower,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(follower)
    text = read_until(leader, "problem> ")
    assert "/quit " in text
    os.write(leader, b"/random\n")
    text = read_until(leader, "problem> ")
    assert "┃ reference" in text
    assert "V* " in text
    os.write(leader, b"\x04")
    text = read_until(leader, "astarpo report")
    assert "next: " in text
    assert process.wait(120) == 0


def read_until(descriptor: int, wanted: str) -> str:
    """What a terminal shows up to some text."""
    written = b""
    while wanted.encode() not in written:
        assert select.select([descriptor], [], [], 240)[0], written
        written += os.read(descriptor, 65536)
    return written.decode()


def test_an_unfinished_run_is_asked_at_its_last_checkpoint(run, tmp_path, capsys):
    halted = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(halted / "model")
    words = ["chat", str(halted), "--problem", "random", "--device", "cpu"]
    assert main(words) == 0
    assert "trained, step 2 so far" in capsys.readouterr().out
    shutil.rmtree(halted / "checkpoints")
    assert main(words) == 2
    assert "no trained model yet, nor a checkpoint" in capsys.readouterr().err


def test_without_its_value_table_a_run_can_still_be_asked(run, tmp_path, capsys):
    moved = shutil.copytree(run, tmp_path / "run")
    config = (moved / "config.json").read_text()
    name = re.search(r'"values": "(.+?)"', config)[1]
    (moved / "config.json").write_text(config.replace(name, str(tmp_path / "gone")))
    words = ["chat", str(moved), "--problem", "digits/train/4", "--max-new-tokens", "4"]
    assert main([*words, "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert "gone: not there any more: no V* is known" in shown.err
    assert "digits/train/4   right: 1   V* not estimated" in shown.out


def test_a_dry_run_says_what_there_is_to_ask(run, capsys):
    assert main(["chat", str(run), "--dry-run", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "24 problems to pick from, 24 with V*" in text
    assert f"trained: {run / 'model'}" in text


def test_an_unknown_problem_is_refused_before_models_are_loaded(run, capsys):
    assert main(["chat", str(run), "--problem", "digits/train/44"]) == 2
    assert capsys.readouterr().err == (
        "astarpo: digits/train/44: no problem of this run has that id; one that has: "
        "digits/train/4\n"
    )
    with pytest.raises(UserError, match="no such folder"):
        astarpo.chat(astarpo.config.ChatConfig(run=run / "nothing"))
