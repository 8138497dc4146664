import json
import os
import subprocess
import sys

import pytest

from astarpo.runtime.files import write_json
from astarpo.runtime.locks import folder_lock
from astarpo.types import UserError

HOLD = """
import sys, time
from pathlib import Path
from astarpo.runtime.locks import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_is_no_hindrance(tmp_path):
    folder = tmp_path / "table"
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    named = rf"process {process.pid} on {os.uname().nodename} is writing here; wait for it or end"
    with pytest.raises(UserError, match=named), folder_lock(folder):
        pass
    process.kill()
    process.wait()
    with folder_lock(folder):
        write_json(folder / "a.json", {})
    assert [p.name for p in folder.iterdir()] == ["a.json"]


def test_a_second_call_in_this_process_is_refused(tmp_path):
    refused = pytest.raises(UserError, match=f"process {os.getpid()} on")
    with folder_lock(tmp_path), refused, folder_lock(tmp_path):
        pass
    with folder_lock(tmp_path):
        pass


def test_the_file_of_a_machine_that_is_gone_may_be_deleted_as_the_message_says(tmp_path):
    with folder_lock(tmp_path):
        with (
            pytest.raises(UserError, match=rf"delete {tmp_path / '.lock'}\)"),
            folder_lock(tmp_path),
        ):
            pass
        (tmp_path / ".lock").unlink()
        with folder_lock(tmp_path):
            assert (tmp_path / ".lock").exists()
        (tmp_path / ".lock").write_text("of another")
    assert (tmp_path / ".lock").read_text() == "of another"


def test_going_on_in_place_of_another_machine_is_said(tmp_path, caplog):
    (tmp_path / ".lock").write_text(json.dumps({"host": "node7", "pid": 12}))
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert "process 12 on node7 was killed while it wrote here" in caplog.text


def test_nothing_is_left_of_a_folder_in_which_nothing_was_written(tmp_path):
    with folder_lock(tmp_path / "new"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_link_or_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    for folder in (tmp_path, tmp_path / "precious"):
        with pytest.raises(UserError, match="cannot write"), folder_lock(folder):
            pass
    assert (tmp_path / "precious").read_text() == "precious"
