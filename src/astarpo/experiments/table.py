"""The results of an experiment as tables: Markdown that also reads well in a terminal."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from astarpo.experiments.plan import TEST

_NONE = "-"

Row = Mapping[str, Any]


class Table(NamedTuple):
    """A table and the sentence over it. The first line names the columns; there may be none."""

    heading: str
    lines: list[list[str]]


def render_tables(results: Mapping[str, Any]) -> str:
    """What `table.md` says: a title, then the tables."""
    parts = [_title(results)]
    for heading, lines in make_tables(results):
        parts += ["", heading]
        parts += ["", *_align(lines)] if lines else []
    return "\n".join(parts) + "\n"


def make_tables(results: Mapping[str, Any]) -> list[Table]:
    """Time and tokens to the target first, then cost, then scores; a line for each variant."""
    rows = results["rows"]
    names = dict.fromkeys(row["variant"] for row in rows)
    groups = {name: [row for row in rows if row["variant"] == name] for name in names}
    return [
        _target_table(results["target"], groups),
        _cost_table(groups),
        _phase_table(groups),
        _score_table(results, groups),
    ]


def _title(results: Mapping[str, Any]) -> str:
    what = f"over {results['setting']}" if results["setting"] else f"equal {results['equal']}"
    seeds = ", ".join(map(str, results["seeds"]))
    return f"{results['kind']}, {what}; seeds {seeds}. Cells: mean ± standard deviation over seeds."


def _target_table(target: float | None, groups: Mapping[str, Sequence[Row]]) -> Table:
    if target is None:
        return Table(
            "No held-out reward above the start was reached by every run: give --target.", []
        )
    lines = [["variant", "runs", "steps", "seconds", "tokens"]]
    for name, rows in groups.items():
        reached = [row["to_target"] for row in rows if row["to_target"]]
        lines.append(
            [
                name,
                f"{len(reached)} of {len(rows)}",
                _spread([cost["steps"] for cost in reached], _short),
                _spread([cost["seconds"] for cost in reached], _short),
                _spread([cost["tokens"] for cost in reached], _short),
            ]
        )
    heading = (
        f"Cost to reach a held-out reward of {target:g}, stage 1 included; means are of the runs "
        "that did, along the line between evaluations:"
    )
    return Table(heading, lines)


def _cost_table(groups: Mapping[str, Sequence[Row]]) -> Table:
    lines = [["variant", "runs", "collapsed", "steps", "seconds", "tokens", "GiB"]]
    for name, rows in groups.items():
        lines.append(
            [
                name,
                str(len(rows)),
                str(sum(row["state"] == "collapsed" for row in rows)),
                _spread((row["steps"] for row in rows), _short),
                _spread((sum(row["seconds"].values()) for row in rows), _short),
                _spread((sum(row["tokens"].values()) for row in rows), _short),
                _spread((row["peak_memory_gib"] for row in rows), "{:.2f}".format),
            ]
        )
    heading = (
        "Cost of whole runs. Seconds and tokens contain stage 1, in full; GiB is the most that "
        "either stage held:"
    )
    return Table(heading, lines)


def _phase_table(groups: Mapping[str, Sequence[Row]]) -> Table:
    phases = ("estimate", "generate", "verify", "reference", "update")
    lines = [["variant", "stage 1", *phases[1:]]]
    lines += [
        [name, *(_spread((row["seconds"][phase] for row in rows), _short) for phase in phases)]
        for name, rows in groups.items()
    ]
    return Table("Seconds by phase:", lines)


def _score_table(results: Mapping[str, Any], groups: Mapping[str, Sequence[Row]]) -> Table:
    rows = [row for group in groups.values() for row in group]
    columns = _score_columns([*(row["scores"] for row in rows), results["reference"]])
    lines = [["variant", "KL", *(f"{set_} {_label(score)}" for set_, score in columns)]]
    for name, reference in _references(results).items():
        cells = (reference.get(set_, {}).get(score, {}).get("value") for set_, score in columns)
        lines.append([name, "0", *(_NONE if c is None else f"{c:.3f}" for c in cells)])
    for name, group in groups.items():
        cells = [_spread([_score(row, *column) for row in group], _three) for column in columns]
        lines.append([name, _spread([row["kl"] for row in group], _three), *cells])
    heading = (
        f"Scores at the end, and KL to the reference in nats a response. {TEST} is held out, the "
        "other sets are out of distribution. A collapsed run counts with its last held-out reward "
        f"in {TEST} avg, and nowhere else:"
    )
    return Table(heading, lines)


def _score_columns(all_scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Problem set and score, of those that stand for greedy and for sampled answers."""
    found = {
        (set_, score): None
        for scores in all_scores
        for set_, values in scores.items()
        for score in values
        if score in _LABELS or score.startswith("avg_at_")
    }
    sets = dict.fromkeys(set_ for set_, _ in found)
    ordered = [TEST, *(set_ for set_ in sets if set_ != TEST)]
    return sorted(found, key=lambda column: ordered.index(column[0]))


_LABELS = {
    "pass_at_1": "greedy",
    "greedy_reward": "greedy reward",
    "acc": "acc",
    "acc_norm": "acc_norm",
}


def _label(score: str) -> str:
    return _LABELS.get(score) or score.replace("avg_at_", "avg@")


def _score(row: Row, problems: str, score: str) -> float | None:
    if row["state"] == "collapsed":
        held_out = row["curve"]["reward"]
        counts = held_out and problems == TEST and score.startswith("avg_at_")
        return held_out[-1] if counts else None
    return row["scores"].get(problems, {}).get(score, {}).get("value")


def _references(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Scores of the reference: one row, or one for each value where problems differ by it."""
    if TEST in results["reference"] or not results["rows"]:
        return {"reference": results["reference"]}
    return {
        f"reference {results['setting']}={row['value']}": row["reference"]
        for row in results["rows"]
    }


def _spread(values: Iterable[float | None], form: Callable[[float], str]) -> str:
    """Mean and standard deviation of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return _NONE
    mean = statistics.fmean(known)
    # What is the same by design, such as steps, has no spread to speak of.
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


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns line up as plain text; all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        f"{'-' * (width - 1)}-" if i == 0 else f"{'-' * (width - 1)}:"
        for i, width in enumerate(widths)
    ]
    return [
        "| "
        + " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in [lines[0], rule, *lines[1:]]
    ]
