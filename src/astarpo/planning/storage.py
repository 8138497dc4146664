"""What a run leaves on disk, in bytes."""

from collections.abc import Mapping

from astarpo.config import TrainConfig
from astarpo.planning.shape import ModelShape
from astarpo.planning.work import Lengths, Work

_TOKEN_BYTES = 2.8
"""A token as an id and as text, compressed: 8 bytes, of which zstd leaves about .35."""

_ROW_BYTES = 60
"""A row of samples beside its tokens: id, reward, status, length, finish reason."""

_LORA_TENSORS = 7
"""Linear layers of a decoder layer, each of which gets an adapter."""


def table_bytes(samples: float, lengths: Lengths) -> float:
    """A value table with its samples."""
    return samples * (lengths.answer_mean * _TOKEN_BYTES + _ROW_BYTES)


def trained_parameters(shape: ModelShape, train: TrainConfig) -> int:
    """Parameters that the optimiser keeps moments of; a critic is as large as the policy."""
    if train.lora_rank is not None:
        # A [rank, in] and a [out, rank] for each linear layer, about three hidden sizes wide.
        width = 3 * shape.hidden_size
        return shape.num_layers * _LORA_TENSORS * train.lora_rank * width
    return shape.num_parameters * (2 if train.algorithm == "ppo" else 1)


def storage(
    shape: ModelShape, train: TrainConfig | None, work: Mapping[str, Work], lengths: Lengths
) -> dict[str, float]:
    """Bytes of each part: value table, samples of training, checkpoints, the trained model.

    Args:
        shape: The model.
        train: The settings of training, where there is some.
        work: What stages do, by their names.
        lengths: Of prompts and answers.
    """
    parts: dict[str, float] = {}
    if "estimate" in work:
        parts["value table"] = table_bytes(work["estimate"].samples, lengths)
    if train is not None:
        trained = trained_parameters(shape, train)
        one = trained * (4 + (2 if train.optimizer == "adamw_8bit" else 8))
        parts["answers of training"] = table_bytes(work["train"].samples, lengths)
        # The newest is whole before the oldest goes.
        count = train.keep_checkpoints + 1
        parts[f"checkpoints ({count} at once, {one / 1e9:.1f} GB each)"] = count * one
        parts["trained model"] = 4.0 * shape.num_parameters
    return parts
