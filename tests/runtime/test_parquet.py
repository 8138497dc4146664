from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astarpo.runtime.files import DamagedFileError
from astarpo.runtime.parquet import open_parquet, seal_of, write_parquet
from astarpo.types import UserError
from tests.conftest import flipped

ROWS = [
    {"id": "a", "reward": 0.25, "ids": [1, 2, 3], "text": "é"},
    {"id": "b", "reward": None, "ids": [], "text": "b" * 20},
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deep" / "rows.parquet"
    write_parquet(path, pa.Table.from_pylist(ROWS))
    return path


def read_parquet(path) -> pa.Table:
    with open_parquet(path) as file:
        return file.read()


def test_what_is_written_is_read_here_and_elsewhere(path):
    assert read_parquet(path).to_pylist() == pq.read_table(path).to_pylist() == ROWS
    content = path.read_bytes()
    write_parquet(path, pa.Table.from_pylist(ROWS))
    assert path.read_bytes() == content


def test_every_flipped_byte_is_seen_or_changes_nothing(path):
    """Nothing is changed by a flip in the mark of the digest alone, which is then as if missing."""
    whole = path.read_bytes()
    unseen = set()
    for place in range(len(whole)):
        path.write_bytes(flipped(whole, place))
        with suppress(DamagedFileError):
            assert read_parquet(path).to_pylist() == ROWS
            assert seal_of(path) is None
            unseen.add(place)
    assert len(unseen) <= len(b"astarpo-blake2b:")


def test_a_cut_file_is_damaged(path):
    whole = path.read_bytes()
    for size in (0, 3, 11, 60, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedFileError, match="damaged, or not a readable Parquet file"):
            read_parquet(path)


def test_files_of_other_tools_are_read_and_their_checksums_checked(path):
    """Also what a tool made of a file of ours: no digest of the old contents goes with it."""
    pq.write_table(pq.read_table(path).slice(1), path, write_page_checksum=True, compression="none")
    assert seal_of(path) is None
    assert read_parquet(path).to_pylist() == ROWS[1:]
    path.write_bytes(path.read_bytes().replace(b"b" * 20, b"b" * 19 + b"c"))
    assert pq.read_table(path)["text"].to_pylist() != [ROWS[1]["text"]]
    with pytest.raises(DamagedFileError, match="CRC"):
        read_parquet(path)


def test_errors_of_the_disk_are_no_damage(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*No such file") as caught:
        read_parquet(tmp_path / "none.parquet")
    assert not isinstance(caught.value, DamagedFileError)
    with pytest.raises(UserError, match="cannot read"), open_parquet(tmp_path):
        pass
