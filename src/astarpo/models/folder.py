"""Model folders: where they are, what transformers loads from them, and their digests.

Nothing that comes with a folder is ever run: no remote code, no pickled weights.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astarpo.types import UserError

_TEXT_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]


def resolve_model(name: str, *, weights: bool = True) -> Path:
    """The local folder of a model, fetched from the hub, with or without weights, where needed.

    Raises:
        UserError: No such folder, or the hub cannot be reached or does not have it.
    """
    if (path := Path(name)).is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{name}: no config.json in this folder; is it a Hugging Face model?")
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise UserError(f"{name}: no such model folder (a hub name looks like Qwen/Qwen2.5-1.5B)")
    from huggingface_hub import snapshot_download

    wanted = [*_TEXT_FILES, "*.safetensors"] if weights else _TEXT_FILES
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # The hub client raises many unrelated types; all mean "not there".
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{name}: neither a local folder nor available from the hub ({reason}); "
            "check the name and the network, or give a folder"
        ) from error


def load_part(name: str, part: str, load: Callable[..., Any], **settings: Any) -> Any:
    """Loads what a model folder holds by one of transformers' auto classes, never running its code.

    Args:
        name: A model folder or a hub name.
        part: What is loaded, for messages; `model` alone needs the weights.
        load: A `from_pretrained` of transformers.
        settings: Arguments for `load`.
    """
    path = resolve_model(name, weights=part == "model")
    try:
        with quiet_transformers():
            return load(path, trust_remote_code=False, **settings)
    except Exception as error:  # A broken folder fails in as many ways as there are files in it.
        reason = str(error).strip().splitlines()[0]
        if "trust_remote_code" in str(error):
            reason = "it is made by Python code of its own, which is never run here"
        raise UserError(f"{name}: the {part} does not load ({reason})") from error


def fingerprint(name: str) -> dict[str, str]:
    """Digests of a model's weights and of its tokenizer, independent of where it lies."""
    path = resolve_model(name)
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{name}: no *.safetensors file (other weight formats are not loaded)")
    text_files = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"]
    text_files += ["tokenizer.model", "chat_template.jinja", "generation_config.json"]
    return {
        "weights": _digest([path / "config.json", *weights]),
        "tokenizer": _digest([path / f for f in text_files if (path / f).is_file()]),
    }


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers' own bars and remarks on reading and writing weights out of the way."""
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(json.dumps([path.name, path.stat().st_size]).encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()
