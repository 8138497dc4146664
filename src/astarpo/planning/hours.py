"""How long stages would take: from measured rates, from rates that are given, or a rough estimate.

The estimate (a roofline) takes the time of whichever is slower, reading memory or multiplying, and
assumes shares of the card's best of each, which were not measured here:

    decoding      half of either with vLLM, a third with hf; 1.5 and 4 ms a step besides
    update        30% of the matrix products; the optimiser reads and writes 28 bytes a weight
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from astarpo.config import ComputeConfig
from astarpo.planning.cards import Card
from astarpo.planning.memory import Place, cache_bytes, engine_name, engine_share
from astarpo.planning.shape import ModelShape
from astarpo.planning.work import Lengths, Work
from astarpo.runtime.files import DamagedFileError, read_json_object
from astarpo.types import UserError

_USED = {"vllm": 0.5, "hf": 0.3, "generate": 0.3}
_OVERHEAD_S = {"vllm": 0.0015, "hf": 0.004, "generate": 0.008}
_UPDATE_SHARE = 0.3
_RAGGED = 3.0
"""Engine hf waits for the longest answer of a batch: times the mean that takes, up to the limit."""


@dataclass(frozen=True)
class Rates:
    """How fast one device is.

    Attributes:
        sample: Tokens a second that it samples.
        update: Tokens a second, prompts included, that it learns from, the reference's part too.
        token_s: Seconds of one decoding step of few rows: the longest answer of a step of training
            takes as many of them as it has tokens, on however many devices.
        update_s: Seconds that each update takes besides, to change the weights.
        said: Where the rates are from, in words.
        answer_mean: Tokens of an answer in the mean, where they were measured.
    """

    sample: float
    update: float
    token_s: float
    update_s: float
    said: str
    answer_mean: float | None = None


def estimated(
    shape: ModelShape, config: ComputeConfig, lengths: Lengths, place: Place
) -> Rates | None:
    """What a card could do, roughly; None where nothing is known of the card."""
    card, engine = place.card, engine_name(config, place.card)
    if card.flops is None or card.bandwidth is None:
        return None
    rows = _rows(shape, config, lengths, place, engine)
    few, full = (_step_s(shape, lengths, place, count, engine) for count in (1, rows))
    wasted = 1.0
    if engine != "vllm":
        wasted = min(_RAGGED, lengths.answer_limit / lengths.answer_mean)
    mean = lengths.prompt_mean + lengths.answer_mean
    passes = 2 + (8 if getattr(config, "gradient_checkpointing", False) else 6)
    flops = passes * shape.num_read + 12 * shape.num_layers * shape.hidden_size * mean
    best = _UPDATE_SHARE * card.flops
    return Rates(
        sample=rows / full / wasted / place.tensor_parallel,
        update=best / flops,
        token_s=few,
        update_s=28 * shape.num_parameters / place.ranks / card.bandwidth,
        said=f"a rough estimate, not measured and likely too fast: {_USED[engine]:.0%} of what "
        f"{card.name} promises while {engine} decodes, {_UPDATE_SHARE:.0%} of its matrix products "
        "while learning",
    )


def _rows(
    shape: ModelShape, config: ComputeConfig, lengths: Lengths, place: Place, engine: str
) -> int:
    """Answers that are sampled at once."""
    if engine != "vllm" or not place.card.is_gpu:
        return config.max_sequences
    weights = shape.num_parameters * place.number_bytes / place.tensor_parallel
    room = engine_share(config) * place.card.memory - weights - 2**31
    one = cache_bytes(shape, lengths.prompt_mean + lengths.answer_mean, place)
    return max(1, min(config.max_sequences, int(room // one)))


def _step_s(shape: ModelShape, lengths: Lengths, place: Place, rows: int, engine: str) -> float:
    """Seconds of one decoding step of so many rows."""
    card = place.card
    assert card.flops is not None
    assert card.bandwidth is not None
    held = lengths.prompt_mean + lengths.answer_mean / 2
    spread = place.tensor_parallel
    read = shape.num_read * place.number_bytes / spread + rows * cache_bytes(shape, held, place)
    products = 2 * shape.num_read * rows / spread
    slower = max(read / card.bandwidth, products / card.flops)
    return slower / _USED[engine] + _OVERHEAD_S[engine] * card.is_gpu


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step of training, on all devices together.

    Attributes:
        sampling: To sample its answers.
        longest: The longest of them alone takes so long, on however many devices.
        learning: Forward and backward passes, the reference's too.
        changing: To change the weights.
    """

    sampling: float
    longest: float
    learning: float
    changing: float

    @property
    def total(self) -> float:
        """Sampling takes no less than the longest answer."""
        return max(self.sampling, self.longest) + self.learning + self.changing

    @property
    def slowest(self) -> str:
        """What most of it goes into, in words."""
        if self.longest > self.sampling:
            sampled = "waiting for the longest answer, which more devices do not shorten"
        else:
            sampled = "sampling"
        parts = {
            sampled: max(self.sampling, self.longest),
            "learning": self.learning,
            "changing the weights": self.changing,
        }
        return max(parts, key=lambda name: parts[name])


def step_time(
    work: Work, rates: Rates, lengths: Lengths, place: Place, minibatches: int
) -> StepTime:
    """What a step of training takes, in the mean."""
    copies = place.devices
    return StepTime(
        sampling=work.answer_tokens / work.steps / (rates.sample * copies),
        longest=min(lengths.answer_limit, _RAGGED * lengths.answer_mean) * rates.token_s,
        learning=work.learnt_tokens / work.steps / (rates.update * copies),
        changing=minibatches * rates.update_s,
    )


def stage_seconds(
    work: Work, rates: Rates, lengths: Lengths, place: Place, minibatches: int
) -> float:
    """Seconds of a stage on all devices; of data and a warm start, which are short, nothing."""
    if work.steps and work.samples:
        return work.steps * step_time(work, rates, lengths, place, minibatches).total
    return work.answer_tokens / (rates.sample * place.devices)


def with_given(rates: Rates | None, sample: float | None, update: float | None) -> Rates | None:
    """Rates with those in the place of others that the user gave; None where some are missing."""
    if sample is None and update is None:
        return rates
    if rates is None:
        if sample is None or update is None:
            return None
        return Rates(sample, update, 0.0, 0.0, "as given")
    said = {"sample": sample, "update": update}
    given = [f"--{name}-rate {rate:g}" for name, rate in said.items() if rate]
    return replace(
        rates,
        sample=sample or rates.sample,
        update=update or rates.update,
        said=f"{' and '.join(given)} as given"
        + ("" if len(given) == 2 else f"; else {rates.said}"),
    )


def measured(path: Path, prompt_mean: float) -> Rates:
    """Rates of a finished run, or of the rows that `benchmarks/gpu.py` wrote.

    Args:
        path: A folder of `astarpo run` or `astarpo train`, or a JSON file.
        prompt_mean: Tokens of a prompt in the mean, which a run does not write down.

    Raises:
        UserError: There are no rates in it.
    """
    if path.is_dir():
        return _of_run(path, prompt_mean)
    try:
        record = read_json_object(path)
    except DamagedFileError as error:
        raise UserError(
            f"{path}: no rates can be read ({error}); give a run of astarpo run or astarpo train, "
            "or the file that benchmarks/gpu.py wrote"
        ) from error
    return _of_benchmark(path, record)


def _of_run(path: Path, prompt_mean: float) -> Rates:
    run = path / "train" if (path / "train").is_dir() else path
    file = run / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no run that can be read ({error})") from error
    if not rows:
        raise UserError(f"{path}: has made no step, so there are no rates to plan by")
    rows = rows[1:] or rows  # the first is slow: models are tried out, libraries warm up
    tokens = sum(row["tokens"] for row in rows)
    answers = sum(row["tokens"] / row["length_mean"] for row in rows)
    seconds = {n: sum(row[f"seconds_{n}"] for row in rows) for n in ("generate", "verify")}
    learning = sum(row["seconds_reference"] + row["seconds_update"] for row in rows)
    return Rates(
        sample=tokens / (seconds["generate"] + seconds["verify"]),
        update=(tokens + answers * prompt_mean) / learning,
        token_s=0.0,
        update_s=0.0,
        said=f"as measured in {path}, {len(rows)} steps (its devices together count as one)",
        answer_mean=tokens / answers,
    )


def _of_benchmark(path: Path, record: Mapping[str, Any]) -> Rates:
    def best(part: str) -> Mapping[str, Any]:
        rows = [row for row in record.get(part, []) if isinstance(row, dict) and "tokens/s" in row]
        if not rows:
            raise UserError(f"{path}: has no rates of {part!r}: benchmarks/gpu.py writes such")
        last = rows[-1]["row"].split(",")[0]  # the largest model comes last
        return max((r for r in rows if r["row"].startswith(last)), key=lambda r: r["tokens/s"])

    sampled, learnt = best("generation"), best("update")
    update_s = learnt.get("update s", 1.0)
    share = update_s / (update_s + learnt.get("reference s", 0.0))
    return Rates(
        sample=sampled["tokens/s"],
        update=learnt["tokens/s"] * share,
        token_s=0.0,
        update_s=0.0,
        said=f"as measured on {record.get('device', 'a device')} ({path}): "
        f"{sampled['row']}; {learnt['row']}",
    )


def unknown_speed(card: Card) -> str:
    """What is said where nothing tells the speed."""
    return (
        f"hours: nothing is known of the speed of {card.name}: give a --card by name, --rates, or "
        "--sample-rate with --update-rate"
    )
