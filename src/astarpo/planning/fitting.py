"""Whether every stage of a run fits into its devices, and the same after a change."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from astarpo.algorithms.choice import make_algorithm
from astarpo.config import ComputeConfig, EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.planning.memory import (
    Moment,
    Place,
    alone_moment,
    engine_name,
    engine_share,
    sampling_moment,
    update_moment,
    vllm_refusal,
)
from astarpo.planning.shape import ModelShape
from astarpo.planning.work import Lengths

TITLES = {"estimate": "stage 1", "evaluate_reference": "scores", "evaluate": "scores"}
"""Stages that only sample, with what tables call them."""


@dataclass(frozen=True)
class Trial:
    """Settings that are tried, and where.

    Attributes:
        stages: The config of each stage, by its name.
        shape: The model.
        lengths: Of prompts and answers.
        place: The devices.
    """

    stages: Mapping[str, Any]
    shape: ModelShape
    lengths: Lengths
    place: Place

    @property
    def train(self) -> TrainConfig | None:
        """The settings of training, where the run trains."""
        return self.stages.get("train")

    @cached_property
    def moments(self) -> list[Moment]:
        """The fullest moments of all stages."""
        found = [
            alone_moment(
                TITLES[name], self.shape, config, self.lengths, self.place, max(1, config.samples)
            )
            for name, config in self._sampling.items()
        ]
        if self.train is not None:
            group = make_algorithm(self.train, self.lengths.answer_limit).samples_per_prompt
            samples = self.train.prompts_per_step * group
            update = update_moment(self.shape, self.train, self.lengths, self.place)
            found += [
                sampling_moment(self.shape, self.train, self.lengths, self.place, samples, update),
                update,
            ]
        return found

    @cached_property
    def refusals(self) -> list[str]:
        """Why vLLM cannot sample at all in the share of a GPU that it is given."""
        asked = {TITLES[name]: config for name, config in self._sampling.items()}
        asked |= {"training": self.train} if self.train is not None else {}
        found = []
        for title, config in asked.items():
            if engine_name(config, self.place.card) == "vllm":
                share = engine_share(config)
                if reason := vllm_refusal(self.shape, share, self.lengths, self.place):
                    found.append(f"{title}: {reason}")
        return found

    @property
    def _sampling(self) -> dict[str, EstimateConfig | EvaluateConfig]:
        return {name: self.stages[name] for name in TITLES if name in self.stages}

    @property
    def speed(self) -> ComputeConfig:
        """The settings that the speed is that of: those of training, else of what samples."""
        return next(self.stages[name] for name in ("train", *TITLES) if name in self.stages)

    @property
    def peak(self) -> float:
        """Bytes of the fullest moment."""
        return max((moment.total for moment in self.moments), default=0.0)

    @property
    def fits(self) -> bool:
        """Whether a device holds all of it."""
        return not self.refusals and self.peak <= self.place.card.memory

    @property
    def may_fit(self) -> bool:
        """Whether weights, gradients and moments alone would, so that it is worth tracing."""
        size, train = float(self.shape.num_parameters), self.train
        least = 0.0
        if train is not None and train.lora_rank is not None:
            least = 2 * size
        elif train is not None and not (train.policy_offload and self.place.ranks > 1):
            least = (8 + (2 if train.optimizer == "adamw_8bit" else 8)) * size
        return not self.refusals and least / self.place.ranks <= self.place.card.memory

    def changed(self, changes: Mapping[str, Any]) -> "Trial":
        """The same with other settings, named as `--set` names them."""
        trial = self
        for path, value in changes.items():
            table, _, name = path.rpartition(".")
            if table == "resources":
                trial = replace(trial, place=_place(trial.place, name, value))
                continue
            stages = {
                stage: config.model_copy(update={name: value})
                if table in ("", stage) and name in type(config).model_fields
                else config
                for stage, config in trial.stages.items()
            }
            trial = replace(trial, stages=stages)
        return trial


def _place(place: Place, name: str, value: int) -> Place:
    if name == "tensor_parallel":
        return replace(place, tensor_parallel=value)
    each = {"nodes": place.nodes, "devices": place.devices_per_node} | {name: value}
    return place.over(each["nodes"], each["devices"])
