"""The results of an experiment as tables with a row for each variant."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from astarpo.experiments.plan import TEST
from astarpo.experiments.records import Experiment, Run, Score, Seconds
from astarpo.runtime.tables import markdown_table

_NONE = "-"

Groups = Mapping[str, Sequence[Run]]
"""Runs by variant."""


class Table(NamedTuple):
    """A heading and a table, whose first line names the columns. There may be no lines."""

    heading: str
    lines: list[list[str]]


def render_tables(results: Experiment) -> str:
    """What `table.md` says: a title, then the tables."""
    parts = [_title(results)]
    for heading, lines in make_tables(results):
        parts += ["", heading]
        parts += ["", *markdown_table(lines, range(1, len(lines[0])))] if lines else []
    return "\n".join(parts) + "\n"


def make_tables(results: Experiment) -> list[Table]:
    """Cost to the target, cost of whole runs, seconds by phase, scores, differences of scores."""
    groups = results.variants
    return [
        _target_table(results.target, groups),
        _cost_table(groups),
        _phase_table(groups),
        _score_table(results),
        *_paired_tables(results),
    ]


def _title(results: Experiment) -> str:
    what = f"over {results.setting}" if results.setting else f"equal {results.equal}"
    seeds = ", ".join(map(str, results.seeds))
    return f"{results.kind}, {what}; seeds {seeds}. Cells: mean ± standard deviation over seeds."


def _target_table(target: float | None, groups: Groups) -> Table:
    if target is None:
        return Table(
            "No held-out reward above the start was reached by every run: give --target.", []
        )
    lines = [["variant", "runs", "steps", "seconds", "tokens"]]
    for name, runs in groups.items():
        reached = [run.to_target for run in runs if run.to_target]
        costs = ([getattr(cost, column) for cost in reached] for column in lines[0][2:])
        spreads = (_spread(values, _short) for values in costs)
        lines.append([name, f"{len(reached)} of {len(runs)}", *spreads])
    heading = (
        f"Cost to reach a held-out reward of {target:g}, stage 1 included; means are of the runs "
        "that did, along the line between evaluations:"
    )
    return Table(heading, lines)


def _cost_table(groups: Groups) -> Table:
    lines = [["variant", "runs", "collapsed", "steps", "seconds", "tokens", "GiB"]]
    for name, runs in groups.items():
        lines.append(
            [
                name,
                str(len(runs)),
                str(sum(run.collapsed for run in runs)),
                _spread((run.steps for run in runs), _short),
                _spread((run.seconds.total for run in runs), _short),
                _spread((run.tokens.total for run in runs), _short),
                _spread((run.peak_memory_gib for run in runs), "{:.2f}".format),
            ]
        )
    heading = (
        "Cost of whole runs. Seconds and tokens contain stage 1, in full; GiB is the most that "
        "either stage held:"
    )
    return Table(heading, lines)


def _phase_table(groups: Groups) -> Table:
    phases = list(Seconds.model_fields)
    lines = [["variant", "stage 1", *phases[1:]]]
    lines += [
        [name, *(_spread((getattr(run.seconds, p) for run in runs), _short) for p in phases)]
        for name, runs in groups.items()
    ]
    return Table("Seconds by phase:", lines)


def _score_table(results: Experiment) -> Table:
    columns = [
        (split, name)
        for split in results.splits
        for name in results.score_names(split)
        if name in _LABELS or name.startswith("avg_at_")
    ]
    words = (f"{s} {_LABELS.get(name) or name.replace('avg_at_', 'avg@')}" for s, name in columns)
    lines = [["variant", "KL", *words]]
    for line, reference in _references(results).items():
        found = (reference.get(split, {}).get(name) for split, name in columns)
        lines.append([line, "0", *(_three(score.value) if score else _NONE for score in found)])
    for line, runs in results.variants.items():
        cells = [_spread([run.score(*column) for run in runs], _three) for column in columns]
        lines.append([line, _spread([run.kl for run in runs], _three), *cells])
    heading = (
        f"Scores at the end, and KL to the reference in nats a response. {TEST} is held out, the "
        "other sets are out of distribution. A collapsed run counts with its last held-out reward "
        f"in {TEST} avg, and nowhere else:"
    )
    return Table(heading, lines)


def _paired_tables(results: Experiment) -> list[Table]:
    """Each variant beside the first, seed by seed, in the averages of samples on the test set."""
    variants = results.variants
    names = [name for name in results.score_names(TEST) if name.startswith("avg_at_")]
    if len(variants) < 2 or len(results.seeds) < 2 or not names:
        return []
    first, *others = variants
    scores = {v: {run.seed: run.score(TEST, names[0]) for run in variants[v]} for v in variants}
    lines = [["variant", "difference", "higher in", "p"]]
    for name in others:
        pairs = [(score, scores[first].get(seed)) for seed, score in scores[name].items()]
        deltas = [a - b for a, b in pairs if a is not None and b is not None]
        higher = f"{sum(delta > 0 for delta in deltas)} of {len(deltas)} seeds"
        mean = "" if not deltas or statistics.fmean(deltas) < 0 else "+"
        lines.append([name, mean + _spread(deltas, _three), higher, _three(sign_flip_p(deltas))])
    heading = (
        f"{TEST} {names[0].replace('avg_at_', 'avg@')} beside that of {first} with the same seed; "
        "p is that of the exact two-sided sign-flip test over seeds, 2 to the power of 1 - seeds "
        "at the least:"
    )
    return [Table(heading, lines)]


def sign_flip_p(deltas: Sequence[float]) -> float:
    """Share of all choices of signs whose sum is as far from 0 as that of the differences.

    The exact two-sided paired test of no difference: each sign is then as likely as the other.
    """
    found = abs(sum(deltas)) * (1 - 1e-12)
    flips = product((1, -1), repeat=len(deltas))
    sums = [abs(sum(s * d for s, d in zip(signs, deltas, strict=True))) for signs in flips]
    return sum(total >= found for total in sums) / len(sums)


_LABELS = {
    "pass_at_1": "greedy",
    "greedy_reward": "greedy reward",
    "acc": "acc",
    "acc_norm": "acc_norm",
}
"""Scores of greedy answers with their labels; the tables also show the averages of samples."""


def _references(results: Experiment) -> dict[str, Mapping[str, Mapping[str, Score]]]:
    """Scores of the reference: one row, or one for each value where problems differ by it."""
    if TEST in results.reference or not results.rows:
        return {"reference": results.reference}
    return {f"reference {results.setting}={run.value}": run.reference for run in results.rows}


def _spread(values: Iterable[float | None], form: Callable[[float], str]) -> str:
    """Mean and standard deviation of the values that are not None."""
    known = [value for value in values if value is not None]
    if not known:
        return _NONE
    mean = statistics.fmean(known)
    # Numbers that are equal by design, such as steps, need no deviation.
    if len(known) == 1 or (mean == int(mean) and len(set(known)) == 1):
        return form(mean)
    return f"{form(mean)} ± {form(statistics.stdev(known))}"


def _short(value: float) -> str:
    """Three digits or so: `7.25`, `86.1`, `123`, `45.6k`, `1.23M`."""
    size, unit = next(scale for scale in _UNITS if value >= scale[0] or scale[0] == 1)
    value /= size
    digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{unit}"


_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def _three(value: float) -> str:
    return f"{value:.3f}"
