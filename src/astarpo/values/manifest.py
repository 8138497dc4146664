"""The manifest of a value table: reading, comparing, and making it again from the shards."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astarpo.runtime.files import DamagedFileError, read_json_object, unseal
from astarpo.types import UserError
from astarpo.values.shards import check_shard, engine_of, shard_paths

MANIFEST = "manifest.json"

TABLE_MARKS = (MANIFEST, "samples-*.parquet")
"""Files by which the folder of a value table is recognised."""
FORMAT = 2
VERIFIER = "verifier of "
"""How the names of those fingerprint entries begin that say what judged the samples."""

PARTS = "parts"
"""Entry of the manifest while parts fill the table: how many there are."""

_UNSEALED_FORMAT = 1  # of version 0.1.0, without any digest

logger = logging.getLogger("astarpo")


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads a table's manifest, of either format, without its digest."""
    manifest = read_json_object(path / MANIFEST)
    if "digest" in manifest or manifest.get("format") != _UNSEALED_FORMAT:
        manifest = unseal(path / MANIFEST, manifest)
    if manifest.get("format") not in (_UNSEALED_FORMAT, FORMAT):
        raise UserError(f"{path}: a value table of format {FORMAT} is needed")
    return manifest


def description(manifest: Mapping[str, Any]) -> str:
    """What is in a table, such as "24 problems, 2 to 8 samples of each by Qwen/Qwen2.5-1.5B"."""
    if "samples" not in manifest:
        return "unfinished"
    fewest, most = manifest["samples"], manifest.get("max_samples", manifest["samples"])
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    count, model = manifest.get("num_problems"), manifest.get("model")
    return f"{count} problems, {each} samples of each by {model}"


def shard_engines(path: Path) -> dict[str, str]:
    """What sampled each shard of a table that says so, by the shard's name.

    Shards say it themselves; version 0.2.0 wrote it into the manifest, and no version before it
    anywhere.
    """
    named = read_manifest(path).get("shard_engines", {})
    engines = {shard.name: engine_of(shard) or named.get(shard.name) for shard in shard_paths(path)}
    return {name: engine for name, engine in engines.items() if engine is not None}


def differ_in_verifiers(held: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether samples were judged by other verifiers than wanted, or, with None, by unknown ones.

    Args:
        held: Fingerprint of the samples.
        wanted: Fingerprint that they should have.
    """
    if held is None:
        return True
    return any(held[n] != wanted.get(n) for n in held if n.startswith(VERIFIER))


def started_manifest(path: Path) -> dict[str, Any]:
    """The manifest to go on with; one that is damaged or lost is made again from the shards.

    A table without samples starts afresh, so that an attempt that failed does not bind the next;
    unless parts have begun it, whose samples may come at any moment.
    """
    new = {"fingerprint": {}}
    shards = shard_paths(path)
    has_manifest = (path / MANIFEST).is_file()
    if not shards and not has_manifest:
        if path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
            raise UserError(f"{path}: exists and is not a value table; give another --out")
        return new
    try:
        if has_manifest:
            manifest = read_manifest(path)
            return manifest if shards or PARTS in manifest else new
        problem = f"{path / MANIFEST}: lost"
    except DamagedFileError as error:
        problem = str(error)
    if not shards:
        raise UserError(f"{problem}, and there are no samples here; give another --out")
    logger.warning(f"{problem}; made again from the shards")
    return {"fingerprint": _fingerprint_of_shards(shards, problem)}


def _fingerprint_of_shards(shards: Sequence[Path], problem: str) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for shard in shards:
        try:
            fingerprint = check_shard(shard)
        except DamagedFileError:
            continue
        if fingerprint is None:
            raise UserError(
                f"{problem}, and {shard.name}, of version 0.1.0, does not tell what is in it: "
                "restore the manifest, or give another --out"
            )
        held |= fingerprint
    return held


def require_fit(
    held: Mapping[str, Any],
    wanted: Mapping[str, Any],
    path: Path,
    misfit: str = "the value table does not fit",
    *,
    any_verifier: bool = False,
) -> None:
    """Checks that samples are what is wanted; entries that only one side has are not compared.

    Args:
        held: Fingerprint of the samples.
        wanted: Fingerprint that they should have.
        path: Where the samples are.
        misfit: What the message says of them if they do not fit; it names each difference.
        any_verifier: Whether to ignore what judged them.
    """
    names = [n for n in sorted(held.keys() & wanted.keys()) if held[n] != wanted[n]]
    of_verifiers = [name for name in names if name.startswith(VERIFIER)]
    if any_verifier:
        names = [name for name in names if name not in of_verifiers]
    if not names:
        return
    differences = "; ".join(
        f"{n} is {held[n]!r} in the table and {wanted[n]!r} here" for n in names
    )
    if names == of_verifiers:
        differences += (
            ": it has changed since these samples were judged; judge them anew with the astarpo "
            "estimate that made them and --rejudge"
        )
    raise UserError(f"{path}: {misfit}: {differences}")
