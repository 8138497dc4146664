"""Memory of each device at the fullest moments of a run, by what it is for.

Of one device the update is traced (`tracing.py`): the learner's own code runs on fake tensors. What
engines hold, and how several devices share a model, is worked out by the formulas below, which say
what they assume.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from astarpo.config import ComputeConfig, TrainConfig
from astarpo.planning.cards import Card
from astarpo.planning.counting import Kinds
from astarpo.planning.shape import ModelShape
from astarpo.planning.tracing import Load, trace_update
from astarpo.planning.work import Lengths

GIB = 2**30

_PROCESS = {True: 1.5 * GIB, False: 0.6 * GIB}
"""On a GPU its context and the libraries' workspaces; else Python with PyTorch. Not traced."""

_ASLEEP = 1.0 * GIB
"""What vLLM keeps while it sleeps. Other projects report 0.5 to 1.5 GiB; not measured here."""

_VLLM_OWN = 2.0 * GIB
"""vLLM's activations and recorded graphs. Not measured here."""

_VLLM_CPU_CACHE = 1.0 * GIB
"""Keys and values on a CPU, unless the variable VLLM_CPU_KVCACHE_SPACE says another size."""

_GROWTH = 1.25
"""Engine hf: its buffers grow by copying, so that a part is there twice for a moment."""

_ALONE, _SHARED = 0.9, 0.5
"""Shares of a GPU's memory that vLLM takes: alone, and beside a trainer."""

_MOMENTS_8BIT = 2 / 8 + 8 / (8 * 256)
"""Of AdamW's moments in 8 bits: two bytes of eight, and a scale for each block of 256."""

KINDS = {
    "weights": "weights",
    "gradients": "gradients",
    "moments": "optimiser's moments",
    "reference": "reference",
    "copies": "weights in bf16, gathered",
    "activations": "activations",
    "logits": "logits of a chunk",
    "engine": "engine's weights",
    "cache": "keys and values",
    "process": "process and libraries",
}
"""Kinds of memory in the order of the table, with what the table calls them."""


@dataclass(frozen=True)
class Place:
    """Where a run is planned for.

    Attributes:
        card: Every device.
        nodes: Machines.
        devices_per_node: Devices of each.
        tensor_parallel: How many share one engine.
        shard_size: How many share one copy of the weights, gradients and moments; None for all.
    """

    card: Card
    nodes: int = 1
    devices_per_node: int = 1
    tensor_parallel: int = 1
    shard_size: int | None = None

    @property
    def devices(self) -> int:
        """All of them."""
        return self.nodes * self.devices_per_node

    @property
    def ranks(self) -> int:
        """How many share one copy of the weights, gradients and moments."""
        return min(self.shard_size or self.devices, self.devices)

    def over(self, nodes: int, devices_per_node: int) -> "Place":
        """The same over so many machines."""
        return replace(self, nodes=nodes, devices_per_node=devices_per_node)

    @property
    def compute(self) -> torch.dtype | None:
        """What autocast computes in."""
        return torch.bfloat16 if self.card.is_gpu else None

    @property
    def number_bytes(self) -> int:
        """Bytes of a number that an engine holds."""
        return 2 if self.card.is_gpu else 4


@dataclass(frozen=True)
class Moment:
    """What a device holds at the fullest moment of something.

    Attributes:
        name: What is done.
        kinds: Bytes by kind; see `KINDS`.
    """

    name: str
    kinds: Mapping[str, float]

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.kinds.values())


def engine_name(config: ComputeConfig, card: Card) -> str:
    """The engine that `auto` would be on such a device, with vLLM installed."""
    if config.engine != "auto":
        return config.engine
    return "vllm" if card.is_gpu else "hf"


def engine_share(config: ComputeConfig) -> float:
    """The share of a GPU's memory that vLLM takes."""
    return config.engine_memory or (_SHARED if isinstance(config, TrainConfig) else _ALONE)


def update_moment(shape: ModelShape, train: TrainConfig, lengths: Lengths, place: Place) -> Moment:
    """The fullest moment of an update."""
    load = Load(lengths.prompt_longest, lengths.answer_limit, place.compute)
    peaks = trace_update(shape, train, load)
    fullest = max(
        (_placed(kinds, window, shape, train, place) for window, kinds in peaks.items()),
        key=lambda kinds: sum(kinds.values()),
    )
    at_rest = {"process": _PROCESS[place.card.is_gpu]}
    if engine_name(train, place.card) == "vllm":
        resting = _vllm_weights(shape, place) + _VLLM_CPU_CACHE
        at_rest["engine"] = _ASLEEP if place.card.is_gpu else resting
    elif place.ranks > 1:
        at_rest["engine"] = shape.num_parameters * place.number_bytes  # a replica of its own
    return Moment("train: update", {**fullest, **at_rest})


def _placed(
    kinds: Kinds, window: str, shape: ModelShape, train: TrainConfig, place: Place
) -> dict[str, float]:
    """What was traced on one device, as the settings and the number of devices change it."""
    held: dict[str, float] = dict(kinds)
    if train.optimizer == "adamw_8bit":
        held["moments"] = held.get("moments", 0) * _MOMENTS_8BIT
    if train.reference_offload and window != "reference" and place.card.is_gpu:
        held["reference"] = 0
    if place.ranks > 1:
        for kind in ("weights", "gradients", "moments", "reference"):
            held[kind] = held.get(kind, 0) / place.ranks
        held["copies"] = _gathered(shape)
        if place.card.is_gpu:  # Parts are put together from the host's memory.
            parked = ("weights", "gradients", "moments") if train.policy_offload else ()
            parked += ("reference",) if train.reference_offload else ()
            held |= dict.fromkeys(parked, 0)
    return {kind: size for kind, size in held.items() if size}


def host_bytes(shape: ModelShape, place: Place) -> float:
    """What offloading puts into a machine's memory: weights, gradients and moments in fp32."""
    return 16 * shape.num_parameters * place.devices_per_node / place.ranks


def _gathered(shape: ModelShape) -> float:
    """Bytes of what FSDP2 puts together for a while.

    In bf16 the layer in use, the next one, and the embedding and head, which it keeps; and of one
    layer the gradient, in bf16 and in fp32, before it is shared out.
    """
    root = shape.num_embedding + (0 if shape.is_tied else shape.num_head)
    return 2 * (2 * shape.layer_size + root) + 6 * shape.layer_size


def sampling_moment(
    shape: ModelShape,
    train: TrainConfig,
    lengths: Lengths,
    place: Place,
    samples: int,
    update: Moment,
) -> Moment:
    """The fullest moment of sampling while training: no gradients, and an engine.

    Args:
        shape: The model.
        train: The settings.
        lengths: Of prompts and answers.
        place: The devices.
        samples: Answers of a step.
        update: The fullest moment of an update, whose weights, moments and reference stay.
    """
    stays = ("weights", "moments", "reference", "process")
    held = {kind: size for kind, size in update.kinds.items() if kind in stays}
    if engine_name(train, place.card) == "vllm":
        held |= _vllm(shape, engine_share(train), place)
    else:
        each = -(-samples // place.devices)
        rows = min(train.max_sequences, each)
        held["cache"] = _hf_cache(shape, lengths, rows, 1, place)
        if place.ranks > 1:
            held["engine"] = shape.num_parameters * place.number_bytes
        elif place.compute and train.lora_rank is None:
            held["copies"] = 2 * shape.num_read  # autocast's, for as long as it samples
    return Moment("train: sample", held)


def alone_moment(
    name: str, shape: ModelShape, config: ComputeConfig, lengths: Lengths, place: Place, fan: int
) -> Moment:
    """The fullest moment of a stage that only samples.

    Args:
        name: Of the stage.
        shape: The model.
        config: The stage's settings.
        lengths: Of prompts and answers.
        place: The devices.
        fan: Samples of one prompt, which share its keys and values.
    """
    held: dict[str, float] = {"process": _PROCESS[place.card.is_gpu]}
    if engine_name(config, place.card) == "vllm":
        return Moment(name, held | _vllm(shape, engine_share(config), place))
    linear = shape.num_read * place.number_bytes
    if place.card.is_gpu:
        held["weights"] = linear + 4 * shape.num_embedding
    else:
        held["weights"] = 4 * shape.num_parameters
    held["cache"] = _hf_cache(shape, lengths, config.max_sequences, fan, place)
    return Moment(name, held)


def _vllm_weights(shape: ModelShape, place: Place) -> float:
    return shape.num_parameters * place.number_bytes / place.tensor_parallel


def _vllm(shape: ModelShape, share: float, place: Place) -> dict[str, float]:
    """VLLM takes its share of a GPU, whatever it needs; on a CPU a cache of a set size."""
    weights = _vllm_weights(shape, place)
    if not place.card.is_gpu:
        return {"engine": weights, "cache": _VLLM_CPU_CACHE}
    room = share * place.card.memory - weights - _VLLM_OWN
    return {"engine": weights + _VLLM_OWN, "cache": max(room, 0.0)}


def cache_bytes(shape: ModelShape, tokens: float, place: Place) -> float:
    """Bytes of the keys and values of so many tokens, on one of an engine's devices."""
    return tokens * shape.cached_numbers * place.number_bytes / place.tensor_parallel


def _hf_cache(shape: ModelShape, lengths: Lengths, rows: int, fan: int, place: Place) -> float:
    alone = Place(place.card)
    tokens = rows * (lengths.prompt_longest / fan + lengths.answer_limit)
    return _GROWTH * cache_bytes(shape, tokens, alone)


def vllm_refusal(shape: ModelShape, share: float, lengths: Lengths, place: Place) -> str | None:
    """Why vLLM could not even sample one answer in its share of a GPU; None where it could."""
    if not place.card.is_gpu:
        return None
    needed = _vllm_weights(shape, place) + _VLLM_OWN + cache_bytes(shape, lengths.longest, place)
    if needed <= share * place.card.memory:
        return None
    return (
        f"vLLM needs {needed / GIB:.1f} GiB for its weights and one answer, and has "
        f"{share:g} of {place.card.memory / GIB:.1f} GiB"
    )
