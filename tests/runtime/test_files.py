import errno
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors import SafetensorError

from astarpo.runtime import files
from astarpo.runtime.files import (
    DamagedFileError,
    atomic_directory,
    file_digest,
    read_sealed_json,
    remove_directory,
    write_atomic,
    write_json,
    write_sealed_json,
)
from astarpo.types import UserError
from tests.conftest import flipped


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_atomic(path, fail)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_failed_directory_leaves_the_old_one(tmp_path):
    path = tmp_path / "d"
    with atomic_directory(path) as temporary:
        (temporary / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic_directory(path) as temporary:  # noqa: PT012
        (temporary / "new").write_text("new")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    with atomic_directory(path) as temporary:
        (temporary / "new").write_text("new")
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_links_are_followed_to_what_they_point_to(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "model").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "model")
    (tmp_path / "file.json").symlink_to(tmp_path / "disk" / "file.json")
    with atomic_directory(tmp_path / "model") as temporary:
        (temporary / "new").write_text("new")
    write_json(tmp_path / "file.json", {})
    assert (tmp_path / "model").is_symlink()
    assert [p.name for p in (tmp_path / "disk" / "model").iterdir()] == ["new"]
    assert (tmp_path / "disk" / "file.json").read_text() == "{}\n"
    remove_directory(tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "file.json"]


@pytest.mark.parametrize("name", ["file", "folder"])
def test_a_temporary_name_cannot_be_foreseen(tmp_path, name):
    """A link in its place would be written through: two writes never use the same name."""
    used = []
    for _ in range(2):
        if name == "file":
            write_atomic(tmp_path / "x", lambda file: (used.append(file.name), file.write_text("")))
        else:
            with atomic_directory(tmp_path / "y") as folder:
                used.append(folder.name)
    assert used[0] != used[1]
    assert all(name.startswith(".unfinished-") for name in used)


def test_what_is_written_can_be_read_by_whom_the_user_allows(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


HANG = """
import sys, time
from pathlib import Path
from astarpo.runtime.files import atomic_directory, write_atomic
def hang(file):
    file.write_text("half")
    with atomic_directory(Path(sys.argv[1]) / "folder") as folder:
        (folder / "half").write_text("half")
        print("writing", flush=True)
        time.sleep(60)
write_atomic(Path(sys.argv[1]) / "file", hang)
"""


def test_leftovers_of_the_dead_are_removed_and_the_living_let_be(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HANG, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    (tmp_path / ".unfinished-1234-old").mkdir()  # as version 0.1.0 named them
    (tmp_path / ".unfinished-link").symlink_to(tmp_path / "precious")
    write_json(tmp_path / "a.json", {})
    names = [p.name for p in tmp_path.glob(".unfinished-*")]
    assert sorted(name[-5:] for name in names) == ["-file", "-link", "older"]
    process.kill()
    process.wait()
    files._remove_leftovers_once.cache_clear()  # as in a process of its own
    write_json(tmp_path / "a.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".unfinished-link", "a.json"]


def test_what_is_left_over_while_a_folder_is_written_is_removed(tmp_path):
    with atomic_directory(tmp_path / "policy") as folder:
        (folder / "weights").write_text("whole")
        (tmp_path / ".unfinished-5678-policy").mkdir()  # of a process that was killed meanwhile
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "No space left on device; make room and run the same command again"),
        (errno.EROFS, "Read-only file system; give a path that can be written"),
        (errno.EIO, "Input/output error; the disk fails"),
    ],
)
def test_what_the_disk_refuses_is_one_line(tmp_path, number, message):
    def fail(error):
        raise error

    wordy = SafetensorError(f"Error: I/O error: {os.strerror(number)} (os error {number})")
    for error in (OSError(number, os.strerror(number), str(tmp_path / "other")), wordy):
        with pytest.raises(UserError, match=message) as caught:
            write_atomic(tmp_path / "file", lambda _, error=error: fail(error))
        assert str(caught.value).startswith(f"cannot write {tmp_path / 'file'}: ")
        with pytest.raises(UserError, match=message), atomic_directory(tmp_path / "folder"):
            fail(error)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="a part of this path is a file"):
        write_json(tmp_path / "file" / "b.json", {})
    for path in (tmp_path, Path("/proc/b.json")):
        with pytest.raises(UserError, match="cannot write"):
            write_json(path, {})
    with pytest.raises(UserError, match="cannot read"):
        read_sealed_json(tmp_path / "none.json")


def test_every_flipped_byte_of_sealed_json_is_seen_or_changes_nothing(tmp_path):
    path = tmp_path / "a.json"
    value = {"text": "é", "numbers": [1, 2.5, 1e-300], "none": None, "deep": {"yes": True}}
    write_sealed_json(path, value)
    assert read_sealed_json(path) == value
    whole = path.read_bytes()
    unseen = 0
    for place in range(len(whole)):
        path.write_bytes(flipped(whole, place))
        with suppress(DamagedFileError):
            assert read_sealed_json(path) == value  # another way to write the same
            unseen += 1
    assert unseen < len(whole) / 8
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedFileError, match=re.escape(f"{path}: damaged: its contents do not")):
        read_sealed_json(path)


def test_file_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 2_999_999 + b"y")
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")
