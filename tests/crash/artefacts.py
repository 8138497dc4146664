"""What a command left behind, such that two equal runs give equal artefacts."""

import json
import shutil
from pathlib import Path
from typing import Any

_COSTS = ("seconds", "sync_seconds", "tokens_per_second", "peak_memory", "device_memory")
_COSTS += ("stage_seconds", "digest", "check")
"""Names of times begin so, and those of the digests which objects with times have of themselves."""

_LOOKS = {".png", ".html", ".md"}
"""Pictures and pages show times: that they are there and not empty is what is compared."""


def artefacts(folder: Path) -> dict[str, bytes]:
    """Everything below a folder: what each file holds, without times and the folder's own path."""
    return {
        str(path.relative_to(folder)): _content(path, folder)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """What differs between two sets of artefacts, a few words each."""
    lines = [f"{name}: missing" for name in sorted(wanted.keys() - found.keys())]
    lines += [f"{name}: left over" for name in sorted(found.keys() - wanted.keys())]
    lines += [
        f"{name}: differs"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != wanted[name]
    ]
    return lines


def fresh(folder: Path, like: Path | None = None) -> Path:
    """An empty folder, or a copy of another, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    if like is None:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(like, folder, symlinks=True)
    return folder


def _content(path: Path, folder: Path) -> bytes:
    if path.is_symlink():
        return f"link to {path.readlink()}".encode()
    content = path.read_bytes()
    if path.suffix in _LOOKS:
        return b"something" if content else b""
    if path.suffix not in (".json", ".jsonl"):
        return content
    text = content.decode(errors="replace").replace(str(folder), "FOLDER")
    rows = text.splitlines() if path.suffix == ".jsonl" else [text]
    try:
        values = [_without_costs(json.loads(row)) for row in rows]
    except ValueError:
        return content
    if path.name == "stages.json":
        values = [sorted(value) for value in values]  # the seconds of each stage, by its name
    return json.dumps(values, sort_keys=True).encode()


def _without_costs(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_costs(v) for k, v in value.items() if not k.startswith(_COSTS)}
    if isinstance(value, list):
        return [_without_costs(item) for item in value]
    return value
