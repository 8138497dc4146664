"""Facts, scores and settings of several runs, as the page and the Markdown show them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from astarpo.reports.changes import verdict_of

ORIGINS = {
    "stage1": "Stage 1 (reference)",
    "training": "Training",
    "reference": "Reference, evaluated",
    "trained": "Trained, evaluated",
}
"""Names of the origins of answers."""
SHORT_ORIGINS = {
    "stage1": "stage 1",
    "training": "training",
    "reference": "before",
    "trained": "after",
}
"""The same beside dots."""
_SCORE_NAMES = {
    "pass_at_1": "pass@1, greedy",
    "greedy_reward": "reward, greedy",
    "acc": "accuracy",
    "acc_norm": "accuracy, by length",
    "kl": "KL to reference (nats)",
    "kl_per_token": "KL per token (nats)",
}

Run = Mapping[str, Any]
"""A run as `collect.collect_run` gives it."""


class ScoreRow(NamedTuple):
    """One score of one run, before and after training.

    Attributes:
        run: The run's name.
        score: The score's key.
        reference: `value`, `low` and `high` of the reference policy; None where not evaluated.
        trained: The same of the trained policy.
        change: Mean difference over problems, and how many got `better` and `worse`.
    """

    run: str
    score: str
    reference: Mapping[str, float] | None
    trained: Mapping[str, float] | None
    change: Mapping[str, float] | None

    @property
    def name(self) -> str:
        """The score's name for people."""
        return score_name(self.score)

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the change is beyond chance, else nothing."""
        return verdict_of(self.change)

    @property
    def is_share(self) -> bool:
        """Whether the score is a share, which can be drawn on a line from 0 to 1."""
        known = [score for score in (self.reference, self.trained) if score]
        return not self.score.startswith("kl") and all(
            score["low"] >= 0 and score["high"] <= 1 for score in known
        )


def score_name(score: str) -> str:
    """A score's name for people, such as `avg@4`."""
    return _SCORE_NAMES.get(score) or score.replace("_at_", "@")


def fact_rows(runs: Sequence[Run]) -> list[list[Any]]:
    """Rows of a label and its value in each run."""
    columns = [dict(run["facts"]) for run in runs]
    return [[label, *(facts[label] for facts in columns)] for label, _ in runs[0]["facts"]]


def score_rows(runs: Sequence[Run]) -> list[ScoreRow]:
    """A row for each score of each run; the same score of different runs stands together."""
    found = [
        (run, *(run["scores"].get(kind, {}) for kind in ("reference", "trained"))) for run in runs
    ]
    names = dict.fromkeys(name for _, before, after in found for name in [*before, *after])
    return [
        ScoreRow(
            run["name"], name, before.get(name), after.get(name),
            run["changes"].get(name),
        )
        for name in names
        for run, before, after in found
        if name in before or name in after
    ]  # fmt: skip


def curves_by_run(runs: Sequence[Run]) -> dict[str, dict[str, list[Any]]]:
    """The curves of the runs that have any, by the run's name."""
    return {run["name"]: run["curves"] for run in runs if run["curves"]["step"]}


def stage1_groups(runs: Sequence[Run]) -> list[tuple[list[str], dict[str, Any]]]:
    """Each distinct stage 1, with the names of the runs that share it."""
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for run in runs:
        if run["stage1"]:
            names, _ = groups.setdefault(json.dumps(run["stage1"]), ([], run["stage1"]))
            names.append(run["name"])
    return list(groups.values())


def setting_tables(runs: Sequence[Run]) -> dict[str, list[tuple[str, bool, list[str]]]]:
    """The settings of each part: name, whether runs differ in it, values; differing ones first."""
    tables = {}
    for title in dict.fromkeys(title for run in runs for title in run["settings"]):
        parts = [run["settings"].get(title, {}) for run in runs]
        names = dict.fromkeys(name for part in parts for name in part)
        cells = {name: [part.get(name, "-") for part in parts] for name in names}
        rows = [(name, len(set(values)) > 1, values) for name, values in cells.items()]
        tables[title] = sorted(rows, key=lambda row: not row[1])
    return tables
