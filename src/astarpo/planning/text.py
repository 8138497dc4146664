"""A plan for people, in lines of at most 80 characters, and for programs, as JSON has it."""

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from astarpo.config import TrainConfig
from astarpo.planning.hours import unknown_speed
from astarpo.planning.memory import GIB, KINDS, Moment, Place, engine_name
from astarpo.planning.planned import Planned
from astarpo.planning.records import Plan
from astarpo.planning.remedies import Remedy
from astarpo.runtime.tables import text_table
from astarpo.training.inputs import text_of_stages

WIDTH = 80


def render(planned: Planned, *, brief: bool = False) -> Plan:
    """The plan as text and as facts; `brief` leaves out of the text what was found in problems."""
    parts = [
        _heading(planned),
        _work(planned),
        _memory(planned),
        _hours(planned),
        _storage(planned),
        [] if brief else _problems(planned),
        _verdict(planned),
    ]
    text = "\n\n".join("\n".join(part) for part in parts if part)
    return Plan(planned.fits, facts(planned), text)


def _heading(planned: Planned) -> list[str]:
    asked = planned.asked
    size = asked.shape.num_parameters
    shown = f"{size / 1e9:.2f} billion" if size >= 1e8 else f"{size / 1e6:.2f} million"
    place, card = asked.place, asked.place.card
    each = " each" if place.devices > 1 else ""
    return _wrapped(
        f"{asked.name}: {_called(asked.shape.name)} ({shown} parameters) on {_devices(place)} of "
        f"{card.memory / GIB:.1f} GiB{each}, engine {engine_name(planned.ready.speed, card)}. "
        "Nothing is run or loaded."
    )


def _called(name: str) -> str:
    """A model by its hub name, or by the last part of its folder."""
    return Path(name).name if Path(name).is_dir() else name


def _devices(place: Place) -> str:
    """The devices in words."""
    if place.devices == 1:
        return place.card.name if not place.card.is_gpu else f"1 {place.card.name}"
    each = f"{place.devices_per_node} x {place.card.name}"
    return f"{place.nodes} nodes with {each}" if place.nodes > 1 else each


def _work(planned: Planned) -> list[str]:
    rows = [("stage", "problems", "samples", "steps", "tokens sampled")]
    rows += [
        (
            each.stage.replace("_", " "),
            f"{each.problems:,}",
            f"{each.samples:,}" if each.samples else "",
            f"{each.steps:,}" if each.steps else "",
            _count(each.answer_tokens) if each.answer_tokens else "",
        )
        for each in planned.work
    ]
    lengths = planned.asked.lengths
    return [
        *text_table(rows, right={1, 2, 3, 4}),
        *_wrapped(
            f"prompts: {lengths.prompt_mean:,.0f} tokens in the mean, the longest "
            f"{lengths.prompt_longest:,} ({lengths.prompts_from})"
        ),
        *_wrapped(
            f"answers: {lengths.answer_mean:,.0f} tokens expected ({lengths.answers_from}), cut at "
            f"{lengths.answer_limit:,}"
        ),
    ]


def _memory(planned: Planned) -> list[str]:
    moments, place = planned.moments, planned.asked.place
    rows = [("GiB of a device, at most", *(moment.name for moment in moments))]
    for kind, title in KINDS.items():
        sizes = [moment.kinds.get(kind, 0.0) for moment in moments]
        if any(size > 0.005 * GIB for size in sizes):
            shown = [f"{size / GIB:.2f}" if size else "" for size in sizes]
            rows.append((f"  {title}", *shown))
    rows.append(("total", *(f"{moment.total / GIB:.2f}" for moment in moments)))
    rows.append((f"of {place.card.memory / GIB:.1f}", *(_fits(planned, m) for m in moments)))
    lengths = planned.asked.lengths
    train: TrainConfig | None = planned.asked.stages.get("train")
    told = f"for sequences of {lengths.longest:,} tokens"
    if train is None:
        told += ", by formulas."
    else:
        most = max(train.micro_batch_tokens, lengths.longest)
        told += (
            f", micro-batches of {most:,}. The update is traced: the learner's own code on tensors "
            "without contents. Engines "
        )
        shared = f"and how {place.ranks} devices share a model " if place.ranks > 1 else ""
        told += f"{shared}are worked out by formulas."
    if place.card.is_gpu:
        told += " No peak on a GPU has been measured to hold this against."
    return [*text_table(rows, right=set(range(1, len(moments) + 1))), *_wrapped(told)]


def _fits(planned: Planned, moment: Moment) -> str:
    return "fits" if moment.total <= planned.asked.place.card.memory else "TOO MUCH"


def _hours(planned: Planned) -> list[str]:
    asked, rates, place = planned.asked, planned.rates, planned.ready.place
    if not planned.fits and not planned.remedies:
        return []
    if rates is None:
        return _wrapped(unknown_speed(place.card))
    rows = [["stage", "hours"] + ["cost"] * bool(asked.price)]
    for stage, seconds in planned.seconds.items():
        if seconds:
            rows.append([stage.replace("_", " "), *_spent(planned, seconds)])
    rows.append(["in all", *_spent(planned, sum(planned.seconds.values()))])
    if not planned.fits:
        rows[0][0] = "with the first change"
    told = []
    if step := planned.step:
        told = _wrapped(
            f"a step of training: {max(step.sampling, step.longest):.2g} s to sample, "
            f"{step.learning:.2g} s to learn, {step.changing:.2g} s to change the weights; most of "
            f"it goes into {step.slowest}"
        )
    return [
        *text_table(rows, right={1, 2}),
        *told,
        *_wrapped(
            f"on {_devices(place)}, at {rates.sample:,.0f} tokens a second sampled and "
            f"{rates.update:,.0f} learnt from, each: {rates.said}"
        ),
    ]


def _spent(planned: Planned, seconds: float) -> list[str]:
    hours = seconds / 3600
    shown = [f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"]
    if planned.asked.price:
        shown.append(f"{hours * planned.ready.place.devices * planned.asked.price:,.2f}")
    return shown


def _storage(planned: Planned) -> list[str]:
    total = sum(planned.storage.values())
    listed = ", ".join(f"{name} {_bytes(size)}" for name, size in planned.storage.items())
    return _wrapped(f"disk: {_bytes(total)}: {listed}")


def _problems(planned: Planned) -> list[str]:
    checks = planned.asked.checks
    if checks is None:
        return ["problems: not read, taken for granted (--num-problems)"]
    limit = text_of_stages(planned.asked.stages).max_prompt_tokens
    return [line for each in checks.lines(limit) for line in _wrapped(each)]


def _verdict(planned: Planned) -> list[str]:
    if planned.fits:
        return ["fits"]
    room = planned.asked.place.card.memory / GIB
    over = [
        f"{m.name} needs {m.total / GIB:.1f} GiB of {room:.1f}"
        for m in planned.moments
        if m.total > room * GIB
    ]
    lines = _wrapped("does not fit: " + "; ".join(over or planned.refusals))
    for number, remedy in enumerate(planned.remedies):
        lines += _change("change" if number == 0 else "or", remedy)
    if not planned.remedies:
        lines += _wrapped("no change that is known here makes it fit: take a smaller model")
    return lines


def _change(word: str, remedy: Remedy) -> list[str]:
    flags = " ".join(remedy.flags)
    told = f"{remedy.peak / GIB:.1f} GiB at most, planned again; {remedy.cost}"
    return [*_wrapped(f"{word}: {flags}", "  "), *_wrapped(told, "    ")]


def facts(planned: Planned) -> dict[str, Any]:
    """The plan as JSON has it."""
    asked = planned.asked
    return {
        "fits": planned.fits,
        "model": {"name": asked.shape.name, "parameters": asked.shape.num_parameters},
        "devices": asked.place.devices,
        "device_bytes": asked.place.card.memory,
        "card": asked.place.card.name,
        "stages": {each.stage: asdict(each) | {"stage": each.stage} for each in planned.work},
        "lengths": asdict(asked.lengths),
        "memory": {m.name: dict(m.kinds) | {"total": m.total} for m in planned.moments},
        "refusals": planned.refusals,
        "remedies": [asdict(remedy) for remedy in planned.remedies],
        "rates": asdict(planned.rates) if planned.rates else None,
        "seconds": planned.seconds,
        "step_seconds": asdict(planned.step) if planned.step else None,
        "device_hours": planned.device_hours,
        "cost": planned.device_hours * asked.price if asked.price else None,
        "storage_bytes": planned.storage,
        "problems": asdict(asked.checks) if asked.checks else None,
    }


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent or "  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _count(number: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= unit:
            return f"{number / unit:,.1f}{name}"
    return f"{number:,.0f}"


def _bytes(number: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number / 1e3:,.1f} kB"
