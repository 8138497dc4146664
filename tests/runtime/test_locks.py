import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from astarpo.runtime import locks
from astarpo.runtime.files import write_json
from astarpo.runtime.locks import beat, folder_lock, read_holder
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


HAND_ON = """
import subprocess, sys, time
from pathlib import Path
from astarpo.runtime.locks import folder_lock
with folder_lock(Path(sys.argv[1])) as lock:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lock])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_a_folder_is_waited_for_also_while_a_child_of_a_killed_process_has_it(tmp_path, caplog):
    process = subprocess.Popen([sys.executable, "-c", HAND_ON, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    with pytest.raises(UserError, match=f"process {process.pid} on"), folder_lock(tmp_path):
        pass
    ender = threading.Timer(0.5, os.kill, (child, 9))
    started = time.monotonic()
    ender.start()
    with folder_lock(tmp_path, wait=True):
        assert time.monotonic() - started > 0.5
    assert "waiting for it to end" in caplog.text


def test_who_holds_a_folder_can_be_seen(tmp_path):
    assert read_holder(tmp_path) is None
    assert read_holder(tmp_path / "none") is None
    with folder_lock(tmp_path):
        held = read_holder(tmp_path)
        assert held is not None
        assert held.is_alive
        assert held.name == f"process {os.getpid()} on {socket.gethostname()}"
    assert read_holder(tmp_path) is None


@pytest.mark.parametrize(
    ("contents", "is_alive"),
    [("HERE", False), ('{"host": "node7", "pid": 12}', None), ("{", None)],
)
def test_what_a_kill_left_is_told_from_another_machines(tmp_path, contents, is_alive):
    here = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    (tmp_path / ".lock").write_text(contents.replace("HERE", here))
    os.utime(tmp_path / ".lock", (0, time.time() - 100))
    holder = read_holder(tmp_path)
    assert holder is not None
    assert holder.is_alive is is_alive
    assert 100 <= holder.silent_s < 130


def test_looking_at_a_lock_hinders_nobody(tmp_path):
    (tmp_path / ".lock").write_text("{}")
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            read_holder(tmp_path)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            with folder_lock(tmp_path):
                pass
    finally:
        over.set()
        for looker in lookers:
            looker.join()


def test_a_beat_renews_the_file_now_and_then(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(locks, "_last_beat_s", 0.0)
    with folder_lock(tmp_path):
        contents = (tmp_path / ".lock").read_text()
        for _ in range(2):
            beat()
            os.utime(tmp_path / ".lock", (0, 0))
            now[0] += 3.0
            beat()  # too soon
            assert (tmp_path / ".lock").stat().st_mtime == 0
            now[0] += 8.0
            beat()
            assert (tmp_path / ".lock").stat().st_mtime > 1e9
            now[0] += 20.0
        assert (tmp_path / ".lock").read_text() == contents
    beat()  # of nothing
