"""The smallest changes that make a run fit, each planned again before it is recommended."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from astarpo.config import TrainConfig
from astarpo.planning.memory import (
    Moment,
    Place,
    engine_name,
    sampling_moment,
    update_moment,
    vllm_refusal,
)
from astarpo.planning.shape import ModelShape
from astarpo.planning.work import Lengths

_MOST_DEVICES = 4096
_LORA_RANK = 32


@dataclass(frozen=True)
class Remedy:
    """A change that makes training fit.

    Attributes:
        changes: Settings of training, by name; empty where none changes.
        devices: Devices in all, where there have to be more; else None.
        peak: Bytes of its fullest moment, planned with the change.
        cost: What it costs beside that, in words.
    """

    changes: dict[str, Any]
    devices: int | None
    peak: float
    cost: str


@dataclass(frozen=True)
class Trial:
    """Settings of training that are tried, and where.

    Attributes:
        shape: The model.
        train: The settings.
        lengths: Of prompts and answers.
        place: The devices.
        samples: Answers of a step.
    """

    shape: ModelShape
    train: TrainConfig
    lengths: Lengths
    place: Place
    samples: int

    @property
    def moments(self) -> list[Moment]:
        """The fullest moments of training."""
        return [
            update_moment(self.shape, self.train, self.lengths, self.place),
            sampling_moment(self.shape, self.train, self.lengths, self.place, self.samples),
        ]

    @property
    def peak(self) -> float:
        """Bytes of the fullest moment."""
        return max(moment.total for moment in self.moments)

    @property
    def refusal(self) -> str | None:
        """Why vLLM cannot sample beside the trainer; None where it can, or is not used."""
        if engine_name(self.train, self.place.card) != "vllm":
            return None
        share = self.train.engine_memory or 0.5
        return vllm_refusal(self.shape, share, self.lengths, self.place)

    @property
    def fits(self) -> bool:
        """Whether a device holds it."""
        return self.peak <= self.place.card.memory and self.refusal is None

    def changed(self, **changes: Any) -> "Trial":
        """The same with other settings."""
        return replace(self, train=self.train.model_copy(update=changes))

    def over(self, devices: int) -> "Trial":
        """The same over so many devices, which share the weights."""
        place = replace(self.place, ranks=devices, devices=devices)
        return replace(self, place=place)


def find_remedies(trial: Trial) -> list[Remedy]:
    """What makes training fit, the smallest change first; nothing where nothing here does.

    First what changes no result but only the time: activations computed again, smaller
    micro-batches, the reference kept in the host's memory, a smaller share for vLLM. Then more
    devices; then an optimiser of less state; then an adapter in the place of all weights.
    """
    found = []
    same, spared = _cheapest(trial, _sparing(trial))
    if same is not None:
        found.append(_remedy(same, spared, None, "the same results, more time"))
    else:
        devices = trial.place.devices * 2
        while devices <= _MOST_DEVICES:
            most = trial.changed(**spared).over(devices)
            if _may_fit(most) and most.fits:
                cost = "the same results; FSDP2 over the devices"
                found.append(_remedy(most, spared, devices, cost))
                break
            devices *= 2
    if trial.place.ranks == 1 and trial.train.lora_rank is None:
        smaller = spared | {"optimizer": "adamw_8bit"}
        light = trial.changed(**smaller)
        if trial.train.optimizer == "adamw" and _may_fit(light) and light.fits:
            found.append(_remedy(light, smaller, None, "moments are rounded to 8 bits"))
        settings = {k: v for k, v in spared.items() if k != "reference_offload"}
        settings["lora_rank"] = _LORA_RANK
        adapter = trial.changed(reference_offload=False, **settings)
        if same is None and _may_fit(adapter) and adapter.fits:
            found.append(_remedy(adapter, settings, None, "trains an adapter, with a larger lr"))
    return found


def _remedy(trial: Trial, changes: dict[str, Any], devices: int | None, cost: str) -> Remedy:
    return Remedy(changes, devices, trial.peak, cost)


def _sparing(trial: Trial) -> Iterator[dict[str, Any]]:
    """Changes that leave results as they are, the cheapest in time first."""
    train, longest = trial.train, trial.lengths.longest
    if not train.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if train.micro_batch_tokens > longest:
        yield {"micro_batch_tokens": longest}
    gpu = trial.place.card.is_gpu
    if gpu and not train.reference_offload and train.lora_rank is None:
        yield {"reference_offload": True}
    if engine_name(train, trial.place.card) == "vllm" and (train.engine_memory or 0.5) > 0.3:
        yield {"engine_memory": 0.3}
    rows = train.max_sequences
    if engine_name(train, trial.place.card) != "vllm":
        while rows > 8:
            rows //= 2
            yield {"max_sequences": rows}


def _cheapest(
    trial: Trial, changes: Iterator[dict[str, Any]]
) -> tuple[Trial | None, dict[str, Any]]:
    """The first single change that suffices, else the first so many together.

    Returns:
        The trial that fits, None where not even all do; and its changes, or all.
    """
    steps = list(changes)
    tried = [trial.changed(**step) for step in steps]
    if not any(map(_may_fit, [*tried, _all(trial, steps)])):
        return None, _merged(steps)
    for step, each in zip(steps, tried, strict=True):
        if _may_fit(each) and each.fits:
            return each, step
    for count in range(2, len(steps) + 1):
        merged = _merged(steps[:count])
        each = trial.changed(**merged)
        if _may_fit(each) and each.fits:
            return each, merged
    return None, _merged(steps)


def _all(trial: Trial, steps: list[dict[str, Any]]) -> Trial:
    return trial.changed(**_merged(steps))


def _merged(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for step in steps for name, value in step.items()}


def _may_fit(trial: Trial) -> bool:
    """Whether weights, gradients and moments alone would, so that it is worth tracing."""
    if trial.train.lora_rank is not None:
        least = 2.0 * trial.shape.num_parameters
    else:
        moments = 2 if trial.train.optimizer == "adamw_8bit" else 8
        least = (8.0 + moments) * trial.shape.num_parameters
    return least / trial.place.ranks <= trial.place.card.memory
