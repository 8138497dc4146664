"""Parquet files that tell when they are damaged.

Pages have checksums. What lies between them has none in Parquet, so a digest of all other bytes is
put before the footer, where no reader looks and no tool that rewrites a file copies it:

    PAR1 | row groups | "astarpo-blake2b:" digest | footer | length of the footer | PAR1

Files of other origin have no such digest; of their pages, those with a checksum are checked.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from astarpo.runtime.files import DamagedFileError, disk_errors, write_atomic
from astarpo.runtime.remote import is_remote

_MARK = b"astarpo-blake2b:"
_DIGEST_BYTES = 32
_SEAL_BYTES = len(_MARK) + _DIGEST_BYTES
_TAIL_BYTES = 8  # length of the footer, PAR1
_CHUNK_BYTES = 1 << 20


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes a table with checksums and a digest, whole or not at all."""

    def write(temporary: Path) -> None:
        pq.write_table(table, temporary, write_page_checksum=True)
        _seal(temporary)

    write_atomic(path, write)


@contextmanager
def open_parquet(path: Path, *, is_checked: bool = False) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file to read parts of it, once its digest, where it has one, is right.

    Checksums of pages are checked as they are read. With `is_checked` they alone are.

    Raises:
        DamagedFileError: Also inside the block: it is no Parquet file, or is damaged.
    """
    with disk_errors(path, "read"):
        if not is_checked:
            seal_of(path)
        try:
            with (
                path.open("rb") if is_remote(path) else nullcontext(path) as source,
                pq.ParquetFile(source, page_checksum_verification=True) as file,
            ):
                yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).partition("\n")[0]
            raise DamagedFileError(
                f"{path}: damaged, or not a readable Parquet file ({reason})"
            ) from error


def seal_of(path: Path) -> str | None:
    """The digest that a file carries, checked against its contents; None where it has none.

    Stores check what they hold themselves, and would have to send all of it: there it is not
    checked.
    """
    with disk_errors(path, "read"):
        end, seal = _find_seal(path)
        if not seal.startswith(_MARK):
            return None
        digest = seal.removeprefix(_MARK)
        if not is_remote(path) and digest != _digest(path, skip=range(end - _SEAL_BYTES, end)):
            raise DamagedFileError(f"{path}: damaged: its contents do not match its digest")
        return digest.hex()


def _seal(path: Path) -> None:
    end, _ = _find_seal(path)
    seal = _MARK + _digest(path, skip=range(0))
    with path.open("r+b") as file:
        file.seek(end)
        rest = file.read()
        file.seek(end)
        file.write(seal + rest)


def _find_seal(path: Path) -> tuple[int, bytes]:
    """Where the footer begins, and the bytes before it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        end = size - _TAIL_BYTES - int.from_bytes(file.read(4), "little")
        file.seek(max(0, end - _SEAL_BYTES))
        return end, file.read(_SEAL_BYTES)


def _digest(path: Path, skip: range) -> bytes:
    """Digest of a file without some of its bytes."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    position = 0
    with path.open("rb") as file:
        for stop in (skip.start, os.path.getsize(path)):
            while position < stop and (data := file.read(min(_CHUNK_BYTES, stop - position))):
                digest.update(data)
                position += len(data)
            position += len(skip)
            file.seek(position)
    return digest.digest()
