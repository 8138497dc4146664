"""The command line as a process: pipes, interrupts, log lines beside a progress bar."""

import os
import pty
import runpy
import subprocess
import sys

import pytest

from astarpo.config import DataConfig
from astarpo.stages.data import gather_problems
from astarpo.types import UserError


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m astarpo train --help | head -1; exit ${{PIPESTATUS[0]}}"
    # Unbuffered, the first line alone makes the reader leave.
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    assert done.returncode in (0, 141)


def test_an_interrupt_while_importing_is_one_line():
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic': os.kill(os.getpid(), signal.SIGINT)\n"
        "from astarpo.__main__ import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == "astarpo: interrupted\n"
    assert done.returncode == 130


def test_log_lines_stand_alone_beside_a_progress_bar():
    code = (
        "import logging, time\n"
        "from astarpo.cli import main\n"
        "main([])\n"  # sets the log up
        "from astarpo.runtime.progress import Progress\n"
        "with Progress('steps', 3) as bar:\n"
        "    for i in range(3):\n"
        "        time.sleep(0.15)\n"
        "        bar.advance(1)\n"
        "        logging.getLogger('astarpo').warning(f'line {i}')\n"
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=slave,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(slave)
    written = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        written += part
    assert process.wait(120) == 0
    lines = written.decode().replace("\x1b[2K", "\r").replace("\n", "\r").split("\r")
    for i in range(3):
        assert f"line {i}" in lines


def test_the_demo_policys_module_has_help_and_makes_nothing_by_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo_policy", "--help"])
    monkeypatch.delitem(sys.modules, "astarpo.verbs.demo_policy", raising=False)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("astarpo.verbs.demo_policy", run_name="__main__")
    assert "FOLDER" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_json_arrays_are_read(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('\n [\n {"question": "Q1", "answer": "#### 1"},\n'
                    ' {"question": "Q2", "answer": "#### 2"}]\n')  # fmt: skip
    config = DataConfig(task="gsm8k", source=str(path), out=tmp_path / "o.parquet")
    assert [problem.ground_truth for problem in gather_problems(config)] == ["1", "2"]
    path.write_text('[{"question": "Q1", "answer": "#### 1"}, 3]')
    with pytest.raises(UserError, match="row 1: expected a JSON object"):
        gather_problems(config)
    path.write_text('[{"question": "Q1"')
    with pytest.raises(UserError, match="not JSON"):
        gather_problems(config)
