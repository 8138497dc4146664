"""Puts a plan together: work, memory, hours, costs, storage, and what to change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astarpo.algorithms.choice import make_algorithm
from astarpo.config import ComputeConfig, EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.planning.checks import Checks
from astarpo.planning.hours import Rates, estimated, stage_seconds, with_given
from astarpo.planning.memory import Moment, Place, alone_moment, engine_name, vllm_refusal
from astarpo.planning.remedies import Remedy, Trial, find_remedies
from astarpo.planning.shape import ModelShape
from astarpo.planning.storage import storage
from astarpo.planning.work import Lengths, Work, recipe_work


@dataclass(frozen=True)
class Asked:
    """What is planned.

    Attributes:
        name: Of the recipe, for the heading.
        stages: The config of each stage, in order.
        shape: The model.
        place: The devices.
        lengths: Of prompts and answers.
        num_train: Problems to train on.
        num_test: Held-out problems.
        checks: What was found in the problems, where they were read.
        rates: Measured ones; None to estimate them.
        sample_rate: Given by the user, in the place of those.
        update_rate: Likewise.
        price: Of a device for an hour.
    """

    name: str
    stages: Mapping[str, Any]
    shape: ModelShape
    place: Place
    lengths: Lengths
    num_train: int
    num_test: int
    checks: Checks | None = None
    rates: Rates | None = None
    sample_rate: float | None = None
    update_rate: float | None = None
    price: float | None = None


@dataclass(frozen=True)
class Planned:
    """What was worked out.

    Attributes:
        asked: What was planned.
        work: Of each stage, in order.
        moments: The fullest moments of stages that need a device.
        refusals: Why stages cannot run, beside moments that are too full.
        remedies: What makes training fit, the smallest change first; empty where it fits.
        rates: Those that hours are planned by; None where nothing is known.
        seconds: Of each stage, where there are rates.
        storage: Bytes by part.
    """

    asked: Asked
    work: list[Work]
    moments: list[Moment]
    refusals: list[str]
    remedies: list[Remedy]
    rates: Rates | None
    seconds: dict[str, float]
    storage: dict[str, float]

    @property
    def fits(self) -> bool:
        """Whether every stage fits."""
        room = self.asked.place.card.memory
        return not self.refusals and all(moment.total <= room for moment in self.moments)

    @property
    def device_hours(self) -> float:
        """Hours of all devices together."""
        return sum(self.seconds.values()) / 3600 * self.asked.place.devices


def make_plan(asked: Asked) -> Planned:
    """Works everything out; takes seconds, whatever the size of the model."""
    train: TrainConfig = asked.stages["train"]
    algorithm = make_algorithm(train, asked.lengths.answer_limit)
    work = recipe_work(asked.stages, algorithm, asked.num_train, asked.num_test, asked.lengths)
    samples = train.prompts_per_step * algorithm.samples_per_prompt
    trial = Trial(asked.shape, train, asked.lengths, asked.place, samples)
    moments, refusals = _alone(asked)
    moments += trial.moments
    if trial.refusal:
        refusals.append(f"training: {trial.refusal}")
    rates = asked.rates or estimated(asked.shape, train, asked.lengths, asked.place)
    rates = with_given(rates, asked.sample_rate, asked.update_rate)
    seconds = {}
    if rates:
        seconds = {
            each.stage: stage_seconds(each, rates, asked.lengths, asked.place, train.minibatches)
            for each in work
        }
    return Planned(
        asked=asked,
        work=work,
        moments=moments,
        refusals=refusals,
        remedies=[] if trial.fits else find_remedies(trial),
        rates=rates,
        seconds=seconds,
        storage=storage(asked.shape, train, {each.stage: each for each in work}, asked.lengths),
    )


def _alone(asked: Asked) -> tuple[list[Moment], list[str]]:
    """The fullest moments of stages that only sample, and why some cannot."""
    moments, refusals = [], []
    for name, title in (("estimate", "stage 1"), ("evaluate_reference", "scores")):
        config: ComputeConfig | None = asked.stages.get(name)
        if config is None:
            continue
        assert isinstance(config, EstimateConfig | EvaluateConfig)
        fan = max(1, config.samples)
        moments.append(
            alone_moment(title, asked.shape, config, asked.lengths, asked.place, fan)
        )
        if engine_name(config, asked.place.card) == "vllm":
            share = config.engine_memory or 0.9
            if reason := vllm_refusal(asked.shape, share, asked.lengths, asked.place):
                refusals.append(f"{title}: {reason}")
    return moments, refusals
