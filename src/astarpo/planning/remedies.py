"""The smallest changes that make a run fit, each planned again before it is recommended.

First what changes no result but only the time: activations computed again, smaller micro-batches,
the reference kept in the host's memory, fewer answers at a time, a smaller share for vLLM, and,
where ranks share a model the policy in the host's memory as well. Then more devices, with those
settings and without; then moments of 8 bits; then an adapter in the place of all weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from astarpo.planning.fitting import Trial
from astarpo.planning.memory import GIB, engine_name, engine_share, host_bytes

Changes = dict[str, Any]

_PER_NODE = 8
_MOST_NODES = 512
_LEAST_ROWS = 8
_LEAST_SHARE = 0.3
_LORA_RANK = 32

_TRACED = {"train.gradient_checkpointing", "train.micro_batch_tokens", "train.lora_rank"}
"""Changes whose memory takes seconds to tell."""


@dataclass(frozen=True)
class Remedy:
    """A change that makes a run fit.

    Attributes:
        changes: Settings, as `--set` names them.
        peak: Bytes of the fullest moment of all stages, planned with the change.
        cost: What it costs beside that, in words.
    """

    changes: Changes
    peak: float
    cost: str

    @property
    def flags(self) -> list[str]:
        """The changes as flags of `astarpo plan` and `astarpo run`."""
        return [f"--set {name}={str(value).lower()}" for name, value in self.changes.items()]


def find_remedies(trial: Trial) -> list[Remedy]:
    """What makes a run fit, the smallest change first; nothing where nothing here does."""
    found = [_remedy(trial, _cheapest(trial), "the same results, in more time")]
    if found[0] is None and trial.place.card.is_gpu:
        spared = _merged(list(_sparing(trial)))
        fewest = _more_devices(trial, spared)
        found.append(_remedy(trial, fewest, "the same results, shared by FSDP2, in more time"))
        as_it_is = _more_devices(trial, {})
        if as_it_is != fewest:
            found.append(_remedy(trial, as_it_is, "the same results, shared by FSDP2"))
    train = trial.train
    if train is not None and train.lora_rank is None and trial.place.ranks == 1:
        if train.optimizer == "adamw" and trial.place.card.is_gpu:
            light = _cheapest(trial, {"train.optimizer": "adamw_8bit"})
            found.append(_remedy(trial, light, "moments are rounded to 8 bits"))
        adapter = {"train.lora_rank": _LORA_RANK, "train.reference_offload": False}
        trains = _cheapest(trial, adapter)
        if trains and not train.reference_offload:
            del trains["train.reference_offload"]
        found.append(_remedy(trial, trains, "trains an adapter alone; it wants a larger lr"))
    return [remedy for remedy in found if remedy is not None]


def _remedy(trial: Trial, changes: Changes | None, cost: str) -> Remedy | None:
    if changes is None:
        return None
    if changes.get("resources.tensor_parallel", 1) > 1:
        cost += "; not yet by astarpo run, whose engines do not spread a model (docs/scaling.md)"
    changed = trial.changed(changes)
    if changes.get("train.policy_offload"):
        cost += f"; {host_bytes(changed.shape, changed.place) / GIB:,.0f} GiB of a machine's memory"
    return Remedy(changes, changed.peak, cost)


def _sparing(trial: Trial) -> Iterator[Changes]:
    """Changes that leave results as they are, the cheapest in time first."""
    train, card = trial.train, trial.place.card
    if train is not None:
        if not train.gradient_checkpointing:
            yield {"train.gradient_checkpointing": True}
        if train.micro_batch_tokens > trial.lengths.longest:
            yield {"train.micro_batch_tokens": trial.lengths.longest}
        parks = card.is_gpu and train.lora_rank is None
        if parks and not train.reference_offload:
            yield {"train.reference_offload": True}
        if engine_name(train, card) == "vllm" and engine_share(train) > _LEAST_SHARE:
            yield {"train.engine_memory": _LEAST_SHARE}
        if parks and trial.place.ranks > 1 and not train.policy_offload:
            yield {"train.policy_offload": True}
    configs = [config for config in trial.stages.values() if hasattr(config, "max_sequences")]
    if any(engine_name(config, card) != "vllm" for config in configs):
        rows = min(config.max_sequences for config in configs)
        while (rows := rows // 2) >= _LEAST_ROWS:
            yield {"max_sequences": rows}


def _cheapest(trial: Trial, first: Changes | None = None) -> Changes | None:
    """The fewest sparing changes, beside those given, with which a run fits; None if none do."""
    changes = dict(first or {})
    changed = trial.changed(changes)
    if changes and _fits(changed):
        return changes
    steps = list(_sparing(changed))
    if not changed.changed(_merged(steps)).may_fit:
        return None
    for step in steps:
        if _fits(changed.changed(step)):
            return changes | step
    for count in range(2, len(steps) + 1):
        merged = _merged(steps[:count])
        if _fits(changed.changed(merged)):
            return changes | _without_idle(changed, merged)
    return None


def _without_idle(trial: Trial, changes: Changes) -> Changes:
    """The changes without those that it fits without as well."""
    for name in [name for name in changes if name not in _TRACED]:
        fewer = {key: value for key, value in changes.items() if key != name}
        if _fits(trial.changed(fewer)):
            changes = fewer
    return changes


def _more_devices(trial: Trial, settings: Changes) -> Changes | None:
    """So many devices, doubled until it fits, with the settings given."""
    settings = {k: v for k, v in settings.items() if k != "train.reference_offload"}
    devices = 2 * trial.place.devices
    while devices <= _PER_NODE * _MOST_NODES:
        nodes = max(1, devices // _PER_NODE)
        more: Changes = {"resources.nodes": nodes} if nodes > 1 else {}
        more["resources.devices"] = devices // nodes
        for spread in _spreads(trial, devices // nodes):
            changes = {**more, **spread, **settings}
            if _fits(trial.changed(changes)):
                return more | spread | _without_idle(trial.changed(more | spread), settings)
        devices *= 2
    return None


def _spreads(trial: Trial, most: int) -> Iterator[Changes]:
    """An engine over as many devices of a node as the recipe has it, then over more."""
    yield {}
    spread = 2 * trial.place.tensor_parallel
    while trial.refusals and spread <= most:
        yield {"resources.tensor_parallel": spread}
        spread *= 2


def _merged(steps: list[Changes]) -> Changes:
    return {name: value for step in steps for name, value in step.items()}


def _fits(trial: Trial) -> bool:
    return trial.may_fit and trial.fits
