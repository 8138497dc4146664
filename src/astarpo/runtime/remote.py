"""Paths on object stores: `s3://bucket/table`, `gs://...`, or any URL that fsspec opens.

Such a path has pathlib's interface (universal_pathlib's), but for what only a disk can do: there
are no locks, no links, and nothing is renamed. One put is atomic: an object is there whole or not
at all, and the last one put stands. What protects two writers of a value table is therefore how a
table is made: a shard is named by the samples that it holds, so that two writers of one shard write
the same samples; and the manifest is compared before anything is sampled.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeGuard

from astarpo.types import UserError

# Path() makes one slash of two. A single letter is no scheme, but a drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_LIBRARIES = {
    "adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs",
}  # fmt: skip


def as_path(given: Any) -> Any:
    """A path on this machine, or, of a URL, one on a store; None stays None.

    Raises:
        UserError: What opens such URLs is not installed.
    """
    if given is None or not isinstance(given, str | Path):
        return given
    found = _URL.fullmatch(str(given))
    if found is None:
        return Path(given)
    scheme, rest = found[1].lower(), found[2]
    if scheme == "file":
        return Path("/" + rest)
    return _on_store(f"{scheme}://{rest}", scheme)


def is_url(given: Any) -> bool:
    """Whether something is the URL of a place on a store."""
    found = _URL.fullmatch(given) if isinstance(given, str) and "://" in given else None
    return found is not None and found[1].lower() != "file"


def is_remote(path: Any) -> TypeGuard[Any]:
    """Whether a path is on a store and not on this machine."""
    return hasattr(path, "fs") and not isinstance(path, Path)


@contextmanager
def store_errors(path: Path, doing: str) -> Iterator[None]:
    """Turns an error of a store into one line for the user; nothing is done for local paths.

    Args:
        path: What the user knows.
        doing: `write` or `read`.
    """
    try:
        yield
    except Exception as error:
        is_store = isinstance(error, OSError) or type(error).__module__.split(".")[0] in _LIBRARIES
        if not is_remote(path) or isinstance(error, UserError) or not is_store:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot {doing} {path}: {reason}; {_advice(path, error)}") from error


def _advice(path: Path, error: Exception) -> str:
    words = f"{type(error).__name__} {error}".lower()
    if any(word in words for word in ("credential", "permission", "denied", "forbidden", "token")):
        return (
            "let this machine have credentials that may use the bucket, as the tools of its "
            "provider find them (such as aws configure, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; gcloud auth application-default login)"
        )
    if isinstance(error, FileNotFoundError) or "bucket" in words:
        return "check the name, and make the bucket if there is none"
    return "check the URL and the network"


def _on_store(url: str, scheme: str) -> Any:
    extra = _EXTRAS.get(scheme, "remote")
    try:
        # Objects come and go at the hands of others: what was seen before is asked for again.
        path = import_module("upath").UPath(url, use_listings_cache=False)
        path.fs  # noqa: B018  # made here, so that what it lacks is said here
    except ImportError as error:
        library = f" and the library of fsspec for {scheme}://" if extra == "remote" else ""
        raise UserError(
            f"{url}: what opens it is not installed ({error}): pip install 'astarpo[{extra}]'"
            f"{library}"
        ) from error
    except ValueError as error:
        raise UserError(f"{url}: no store that fsspec knows begins with {scheme}://") from error
    return path
