"""The verb `push`: a run's model or a value table on the Hugging Face hub, with a card.

One commit holds all files, so that no visitor finds half of them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from astarpo.config import PushConfig
from astarpo.reports.cards import CARD, model_card, table_card
from astarpo.rundir.reader import open_run
from astarpo.types import UserError
from astarpo.values.manifest import MANIFEST
from astarpo.values.shards import shard_paths
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")


@dataclass(frozen=True)
class Parcel:
    """What is sent.

    Attributes:
        kind: Of the repository, in the hub's words.
        files: By their names in it, without the card.
        card: Its `README.md`.
    """

    kind: Literal["model", "dataset"]
    files: Mapping[str, Path]
    card: str


def push(config: PushConfig) -> str:
    """Sends a model or a table to a repository of the hub, which is made if it is not there.

    Returns:
        The address of the repository.

    Raises:
        UserError: There is nothing to send, or the hub refuses it or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    parcel = prepare(config)
    operations = [CommitOperationAdd(CARD, parcel.card.encode())]
    operations += [CommitOperationAdd(name, path) for name, path in parcel.files.items()]
    logger.info(f"sending {_size(parcel)} to {config.repo}")
    hub = HfApi()
    try:
        url = hub.create_repo(
            config.repo, repo_type=parcel.kind, private=config.private, exist_ok=True
        )
        hub.create_commit(
            url.repo_id,
            operations,
            commit_message=f"Add {'a model' if parcel.kind == 'model' else 'a value table'}",
            repo_type=parcel.kind,
        )
    except Exception as error:  # of several libraries' types: network, token, name, rights
        reason = " ".join((str(error).strip() or type(error).__name__).split())
        raise UserError(
            f"{config.repo}: the hub did not take it ({reason:.300}); check the name and the "
            "network, and that you are logged in (hf auth login) and may write there"
        ) from error
    return str(url)


def prepare(config: PushConfig) -> Parcel:
    """What would be sent; nothing is asked of the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(config.repo)
    except HFValidationError as error:
        raise UserError(f"{config.repo}: no name of a repository ({error})") from error
    if (config.source / MANIFEST).is_file():
        return _table_parcel(config)
    run = open_run(config.source)
    model = run.training / "model"
    if not (model / "config.json").is_file():
        raise UserError(
            f"{config.source}: has no trained model yet (model/): let the run come to its end first"
        )
    files = {f.name: f for f in sorted(model.iterdir()) if f.is_file() and f.name[0] != "."}
    files.pop(CARD, None)  # The card of now tells scores that came after training too.
    return Parcel("model", files, model_card(run, config.repo))


def preview(config: PushConfig) -> list[str]:
    """The lines of a dry run: the files, and the card; raises what `prepare` raises."""
    parcel = prepare(config)
    return [
        f"{_size(parcel)} to the {parcel.kind} repository {config.repo}:",
        *(f"  {name}" for name in (CARD, *parcel.files)),
        f"{CARD}:",
        parcel.card,
    ]


def _table_parcel(config: PushConfig) -> Parcel:
    table = ValueTable(config.source)
    values = table.path / "values.parquet"
    if "samples" not in table.manifest or not values.is_file():
        raise UserError(f"{table.path}: unfinished; run the same astarpo estimate again first")
    paths = [table.path / MANIFEST, values, *shard_paths(table.path), table.path / "values.png"]
    files = {path.name: path for path in paths if path.is_file()}
    return Parcel("dataset", files, table_card(table, config.repo))


def _size(parcel: Parcel) -> str:
    total = sum(path.stat().st_size for path in parcel.files.values())
    return f"{len(parcel.files) + 1} files, {total / 1e6:.1f} MB,"
