"""What verbs say at their end: the commands are ones that the command line takes."""

import shlex
from pathlib import Path

import pytest

from astarpo.cli import main, parse
from astarpo.cli.endings import ENDINGS, ending
from astarpo.config import VERBS

AFTER = {
    "demo": "demo",
    "run": "run demo --out o --trust-reward r.py:f",
    "data": "data gsm8k --out 'a b.parquet' --reward r.py:f",
    "warm-start": "warm-start --problems p --out o",
    "estimate": "estimate --model m --problems p --out o --trust-reward r.py:f",
    "import-values": "import-values --source s --model m --out o",
    "train": "train --model m --problems p --out o --algorithm grpo",
    "evaluate": "evaluate --model m --problems p --out o.json",
    "compare": "compare",
    "sweep": "sweep beta1",
    "report": "report r",
    "runs": "runs",
    "recipes": "recipes",
    "export": "export t --problems p --out o",
    "push": "push r me/mine",
    "chat": "chat r",
}


def test_every_verb_with_a_next_step_is_tried_here():
    assert ENDINGS.keys() == AFTER.keys() <= VERBS.keys()


@pytest.mark.parametrize("verb", AFTER)
def test_what_comes_next_is_a_command(verb):
    config, _ = parse(shlex.split(AFTER[verb]))
    lines = ending(verb, config)
    trusting = "r.py:f" in AFTER[verb]
    commands = [line.partition(":")[2] for line in lines if line.startswith(("next:", "or:"))]
    assert commands
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "astarpo"
        parse(words)
    assert ("--trust-reward r.py:f" in " ".join(commands)) == trusting


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("data gsm8k --split test --out t.parquet", "evaluate --model MODEL --problems t.parquet"),
        (
            "estimate --model m --problems p --out o --estimator shrunk --beta1 inf",
            "--values o --out runs/new --beta1 inf --estimator shrunk",
        ),
        (
            "import-values --source s --model m --out o --beta1 0.25",
            "--values o --out runs/new --beta1 0.25",
        ),
        ("recipes compare", "compare compare --out"),
        ("recipes gsm8k", "run gsm8k --out"),
        ("estimate --model shipped:sums --problems p --out o", "train --model shipped:sums"),
        (
            "evaluate --model m --reference shipped:beliefs --problems p --out o.json",
            "evaluate --model shipped:beliefs --problems p",
        ),
        ("evaluate --model m --suite paper --out o.json", "--suite paper --out reference-o.json"),
    ],
)
def test_it_fits_what_was_done(words, command):
    config, _ = parse(words.split())
    assert command in " ".join(ending(words.split()[0], config))


def test_a_table_that_was_pushed_is_fetched_by_the_hubs_own_command(tmp_path):
    (tmp_path / "manifest.json").touch()
    config, _ = parse(["push", str(tmp_path), "me/mine"])
    assert "hf download me/mine --repo-type dataset" in " ".join(ending("push", config))
    assert ending("env", parse(["env"])[0]) == []


def test_places_are_named():
    config, _ = parse(["train", "--model", "m", "--problems", "p", "--out", "o"])
    lines = ending("train", config)
    assert f"model:  {Path('o') / 'model'}" in lines


def test_the_command_after_a_shipped_policy_runs_as_it_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = "data arithmetic --size 2 --limit 4 --out p.parquet"
    assert main(data.split()) == 0
    estimate = "estimate --model shipped:sums --problems p.parquet --out values --samples 2"
    capsys.readouterr()
    assert main([*estimate.split(), "--max-new-tokens", "32", "--device", "cpu"]) == 0
    told = capsys.readouterr().err
    (line,) = (each for each in told.splitlines() if each.startswith("next:"))
    assert "train --model shipped:sums --problems p.parquet" in line
    program, *words = shlex.split(line.partition(":")[2])
    assert program == "astarpo"
    assert main(words) == 0, capsys.readouterr().err
    assert Path("runs/new/model/config.json").is_file()
