"""Puts a plan together: work, memory, hours, costs, storage, and what to change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astarpo.planning.checks import Checks
from astarpo.planning.fitting import Trial
from astarpo.planning.hours import (
    Rates,
    StepTime,
    estimated,
    stage_seconds,
    step_time,
    with_given,
)
from astarpo.planning.memory import Moment, Place
from astarpo.planning.remedies import Remedy, find_remedies
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
        ready: As asked, or with the first remedy where that does not fit: what costs are of.
        rates: Those that hours are planned by; None where nothing is known, or nothing fits.
        seconds: Of each stage, where there are rates.
        step: What a step of training takes, where there are rates.
        storage: Bytes by part.
    """

    asked: Asked
    work: list[Work]
    moments: list[Moment]
    refusals: list[str]
    remedies: list[Remedy]
    ready: Trial
    rates: Rates | None
    seconds: dict[str, float]
    step: StepTime | None
    storage: dict[str, float]

    @property
    def fits(self) -> bool:
        """Whether every stage fits."""
        room = self.asked.place.card.memory
        return not self.refusals and all(moment.total <= room for moment in self.moments)

    @property
    def device_hours(self) -> float:
        """Hours of all devices together."""
        return sum(self.seconds.values()) / 3600 * self.ready.place.devices


def make_plan(asked: Asked) -> Planned:
    """Works everything out; takes seconds, whatever the size of the model."""
    trial = Trial(asked.stages, asked.shape, asked.lengths, asked.place)
    remedies = [] if trial.fits else find_remedies(trial)
    work = recipe_work(asked.stages, asked.num_train, asked.num_test, asked.lengths)
    ready = trial.changed(remedies[0].changes) if remedies else trial
    rates = None
    if ready.fits:
        rates = asked.rates or estimated(ready.shape, ready.speed, ready.lengths, ready.place)
        rates = with_given(rates, asked.sample_rate, asked.update_rate)
    seconds, step = {}, None
    if rates:
        updates = trial.train.minibatches if trial.train else 0
        for each in work:
            spent = rates, ready.lengths, ready.place, updates
            seconds[each.stage] = stage_seconds(each, *spent)
            if each.stage == "train":
                step = step_time(each, *spent)
    return Planned(
        asked=asked,
        work=work,
        moments=trial.moments,
        refusals=trial.refusals,
        remedies=remedies,
        ready=ready,
        rates=rates,
        seconds=seconds,
        step=step,
        storage=storage(ready.shape, ready.train, {w.stage: w for w in work}, ready.lengths),
    )
