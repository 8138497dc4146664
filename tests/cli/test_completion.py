"""The script for bash, asked as bash asks it."""

import shutil
import subprocess

import pytest

from astarpo.cli import main
from astarpo.config import VERBS
from astarpo.config.documents import shipped_recipes

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
function=$(complete -p astarpo | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" astarpo "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path, capsys):
    assert main(["--print-completion", "bash"]) == 0
    path = tmp_path / "completion.bash"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.fixture
def complete(script, tmp_path):
    def ask(*words):
        (tmp_path / "here").mkdir(exist_ok=True)
        (tmp_path / "here" / "mine.toml").touch()
        done = subprocess.run(
            ["bash", "-c", ASK, "bash", script, "astarpo", *words],
            capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path / "here",
        )  # fmt: skip
        assert not done.stderr
        return done.stdout.split()

    return ask


def test_verbs(complete):
    assert complete("e") == ["estimate", "evaluate", "export", "env"]
    assert set(complete("")) == VERBS.keys()


def test_flags_and_their_values(complete):
    assert complete("train", "--alg") == ["--algorithm"]
    assert complete("train", "--algorithm", "gr") == ["grpo"]
    assert complete("train", "--no-std") == ["--no-std-normalize"]
    assert complete("estimate", "--device", "") == ["auto", "cpu", "cuda"]


def test_recipes_and_files(complete):
    assert complete("recipes", "gsm") == [name for name in shipped_recipes() if "gsm" in name]
    assert complete("run", "m") == ["math-small", "math", "mine.toml"]
    assert complete("train", "--config", "m") == ["math-small", "math", "mine.toml"]
    assert complete("report", "mi") == ["mine.toml"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_is_right_for_its_shell(shell, tmp_path, capsys):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert main(["--print-completion", shell]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    subprocess.run([shell, "-n", tmp_path / "script"], check=True, timeout=60)
