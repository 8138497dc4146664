"""Results of `astarpo evaluate --suite` that lie in a run's folder, as tables by benchmark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from astarpo.reports.answers import read_answers
from astarpo.reports.changes import paired_changes
from astarpo.rundir.reader import RunDirectory, read_json

_POLICIES = ("reference", "trained")


class _Result(NamedTuple):
    """One file of results.

    Attributes:
        policy: `reference`, `trained`, or the file's name where it is of another model.
        path: The file.
        document: What it says.
    """

    policy: str
    path: Path
    document: Mapping[str, Any]


def read_suites(
    run: RunDirectory, manifest: Mapping[str, Any], notes: list[str]
) -> list[dict[str, Any]]:
    """The results by suite.

    Args:
        run: The run, whose folder is looked through for JSON files of results.
        manifest: That of the value table, which tells the reference policy by its weights.
        notes: Takes a line about each file of answers that cannot be read.

    Returns:
        For each suite its name, its `policies`, and a row for each benchmark: its name, problems,
        protocol, the score of each policy (None where not run), and the paired change from the
        reference to the trained policy where both answered the same problems.
    """
    results: dict[str, list[_Result]] = {}
    for path in sorted(run.path.glob("*.json")):
        document = read_json(path)
        settings, entries = document.get("settings"), document.get("benchmarks")
        if isinstance(settings, dict) and isinstance(entries, dict) and settings.get("suite"):
            found = _Result(_policy(run, manifest, path, document), path, document)
            results.setdefault(str(settings["suite"]), []).append(found)
    return [_table(suite, found, notes) for suite, found in results.items()]


def _policy(
    run: RunDirectory, manifest: Mapping[str, Any], path: Path, document: Mapping[str, Any]
) -> str:
    model = Path(str(document.get("model")))
    # A run may have been moved since.
    if model.resolve() == (run.training / "model").resolve() or (
        not model.exists() and model.parts[-2:] == ("train", "model")
    ):
        return "trained"
    weights = manifest.get("fingerprint", {}).get("weights")
    if weights and document["settings"].get("weights") == weights:
        return "reference"
    return path.stem


def _table(suite: str, results: Sequence[_Result], notes: list[str]) -> dict[str, Any]:
    order = {policy: place for place, policy in enumerate(_POLICIES)}
    results = sorted(results, key=lambda result: order.get(result.policy, len(order)))
    names = dict.fromkeys(name for result in results for name in result.document["benchmarks"])
    both = [next((r for r in results if r.policy == policy), None) for policy in _POLICIES]
    rows = []
    for name in names:
        entries = [_entry(result, name) for result in results]
        known = next((entry for entry in entries if entry), None)
        if known:
            rows.append(
                {
                    "name": name,
                    "problems": known.get("num_problems"),
                    "protocol": known["protocol"].get("says", ""),
                    "scores": [entry and entry["scores"][_score_of(entry)] for entry in entries],
                    "change": _change(both, name, notes),
                }
            )
    return {"suite": suite, "policies": [result.policy for result in results], "rows": rows}


def _entry(result: _Result | None, name: str) -> dict[str, Any] | None:
    """What a file says of a benchmark; None where that is nothing, or not whole."""
    entry = result.document["benchmarks"].get(name) if result else None
    if not isinstance(entry, dict) or not isinstance(entry.get("protocol"), dict):
        return None
    score = entry.get("scores", {}).get(_score_of(entry))
    return entry if isinstance(score, dict) and {"value", "low", "high"} <= score.keys() else None


def _score_of(entry: Mapping[str, Any]) -> str:
    return str(entry["protocol"].get("score"))


def _change(both: Sequence[_Result | None], name: str, notes: list[str]) -> dict[str, float] | None:
    """Trained minus reference, paired by problem."""
    tables, identities = [], set()
    for result in both:
        entry = _entry(result, name)
        if result is None or entry is None:
            return None
        identities.add((entry.get("problems"), entry.get("verifier"), _score_of(entry)))
        path = result.path.parent / str(entry.get("answers"))
        table = read_answers(path, notes)
        if table is None or len(identities) > 1:
            return None
        tables.append(table)
    return paired_changes(*tables).get(next(iter(identities))[2])
