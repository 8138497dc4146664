"""What the finished runs of an experiment have come to, read from their files alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from astarpo.config import TrainConfig
from astarpo.config.documents import build
from astarpo.experiments.plan import TEST, Experiment, Variant, algorithm_of
from astarpo.rundir.reader import read_json, whole_rows
from astarpo.runtime.version import package_version
from astarpo.tasks.problem_set import read_problems
from astarpo.values.deviations import value_deviations
from astarpo.values.table import ValueTable

_TARGET_STEP = 0.05


class Cost(NamedTuple):
    """Of stage 1."""

    seconds: float
    tokens: int
    memory_gib: float = 0.0


def is_finished(summary: Mapping[str, Any]) -> bool:
    """Whether a training, by its summary, ended: at its end or for its health, not by a signal."""
    return bool(summary.get("completed")) or "reason" in summary


def stage1_cost(path: Path, num_samples: int | None) -> Cost:
    """Cost of the first samples of a value table.

    Args:
        path: The table.
        num_samples: Of each problem; None for all. Seconds are shared out by tokens.
    """
    table = ValueTable(path)
    samples = table.samples(["sample", "num_tokens"])
    number, tokens = samples["sample"].to_numpy(), samples["num_tokens"].to_numpy()
    used = int(tokens[number < (num_samples or math.inf)].sum())
    seconds = sum(table.manifest.get("seconds", {}).values()) * used / int(tokens.sum())
    return Cost(seconds, used, table.manifest.get("peak_memory_gib", 0.0))


def collect_results(experiment: Experiment) -> dict[str, Any]:
    """The results of every finished run: what `results.json` says.

    `seconds.estimate` and `tokens.estimate` are stage 1's, in full, where a run used it (of a table
    that several runs share: of the samples it used). They are contained in the seconds and tokens
    of `curve`, `training` and `to_target`. Each row's `reference` has the scores of the reference
    on that row's problems; the same stands at the top, without `test` where that differs by row.
    """
    cost = cache(stage1_cost)
    rows = [_read_row(experiment, variant, seed, cost) for variant, seed in experiment.runs()]
    rows = [row for row in rows if row]
    target = experiment.target
    if target is None:
        target = common_target(rows)
    for row in rows:
        row["to_target"] = None if target is None else cost_of(row["curve"], target)
    reference = _read_reference(experiment, experiment.variants[0])
    if len({variant.data for variant in experiment.variants}) > 1:
        del reference[TEST]
    return {
        "kind": experiment.kind,
        "setting": experiment.setting,
        "equal": experiment.equal,
        "target": target,
        "seeds": list(experiment.seeds),
        "reference": reference,
        "rows": rows,
        "value_error": _value_error(experiment) if experiment.setting == "samples" else None,
        "package_version": package_version(),
    }


def common_target(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The largest multiple of 0.05 that every run reaches on held-out problems at some time.

    Returns:
        None where there is none above every run's start, from where nothing is to be reached.
        Collapsed runs are not asked.
    """
    curves = [row["curve"]["reward"] for row in rows if row["state"] == "done"]
    if not curves or not all(curves):
        return None
    worst = min(map(max, curves))
    # Rounding keeps 0.85 from being just below 17 times 0.05.
    target = round(math.floor(round(worst / _TARGET_STEP, 6)) * _TARGET_STEP, 2)
    return target if target > max(curve[0] for curve in curves) else None


def cost_of(curve: Mapping[str, Sequence[float]], target: float) -> dict[str, float] | None:
    """What it took to reach a held-out reward, along the straight line between evaluations.

    Args:
        curve: `reward` at rising `step`, `seconds` and `tokens`.
        target: The reward.

    Returns:
        `steps`, `seconds` and `tokens` where it was first reached; None where it never was.
    """
    rewards = curve["reward"]
    i = next((i for i, reward in enumerate(rewards) if reward >= target), None)
    if i is None:
        return None
    before = max(i - 1, 0)
    share = (target - rewards[before]) / (rewards[i] - rewards[before]) if i else 0.0
    return {
        name: values[before] + share * (values[i] - values[before])
        for name, values in (
            ("steps", curve["step"]),
            ("seconds", curve["seconds"]),
            ("tokens", curve["tokens"]),
        )
    }


def _read_row(
    experiment: Experiment, variant: Variant, seed: int, cost: Any
) -> dict[str, Any] | None:
    """One run's row without `to_target`; None where it is not finished."""
    path = experiment.run_path(variant, seed)
    summary = read_json(path / "summary.json")
    evaluations = experiment.evaluate_configs(variant, seed)
    if not is_finished(summary):
        return None
    collapsed = "reason" in summary
    if not collapsed and not all(config.out.exists() for config in evaluations.values()):
        return None
    scores = {}
    if not collapsed:
        scores = {name: read_json(config.out)["scores"] for name, config in evaluations.items()}
    settings = read_json(path / "config.json")
    stage1 = Cost(0.0, 0)
    if settings["values"] is not None:
        table = experiment.estimate_config(variant, seed).out
        stage1 = cost(table, settings["values_samples"])
    kl = scores.get(TEST, {}).get("kl")
    return {
        "variant": variant.name,
        "algorithm": variant.line,
        "value": variant.value,
        "seed": seed,
        "settings": settings,
        "state": "collapsed" if collapsed else "done",
        "reason": summary.get("reason"),
        "steps": summary["steps"],
        "samples_per_prompt": algorithm_of(build(TrainConfig, settings)).samples_per_prompt,
        "seconds": {"estimate": stage1.seconds, **summary["seconds"]},
        "tokens": {"estimate": stage1.tokens, "train": summary["tokens"]},
        "peak_memory_gib": max(summary["peak_memory_gib"], stage1.memory_gib),
        "kl": kl["value"] if kl else None,
        "reference": _read_reference(experiment, variant),
        "scores": scores,
        "curve": _curve(whole_rows(path / "evaluations.jsonl"), stage1),
        "training": _training(whole_rows(path / "metrics.jsonl"), stage1),
    }


def _read_reference(experiment: Experiment, variant: Variant) -> dict[str, Any]:
    configs = experiment.reference_configs(variant)
    return {name: read_json(config.out).get("scores", {}) for name, config in configs.items()}


def _curve(lines: Iterable[Mapping[str, Any]], stage1: Cost) -> dict[str, list[float]]:
    rows = list(lines)
    return {
        "step": [row["step"] for row in rows],
        "seconds": [row["seconds"] + stage1.seconds for row in rows],
        "tokens": [row["tokens"] + stage1.tokens for row in rows],
        "reward": [row["reward"] for row in rows],
    }


def _training(lines: Iterable[Mapping[str, Any]], stage1: Cost) -> dict[str, list[float]]:
    rows, seconds, total = list(lines), [], stage1.seconds
    for row in rows:
        total += row["seconds"]
        seconds.append(total)
    kept = {name: [row[name] for row in rows] for name in ("step", "reward", "kl", "loss")}
    return {"seconds": seconds, **kept}


def _value_error(experiment: Experiment) -> dict[str, Any] | None:
    """Errors of V^ by the number of samples, from the table of the first seed."""
    variant = experiment.variants[0]
    stage1 = experiment.estimate_config(variant, experiment.seeds[0])
    manifest = read_json(stage1.out / "manifest.json")
    if "num_problems" not in manifest:
        return None
    table = ValueTable(stage1.out)
    problems = table.sampled(read_problems(stage1.problems))
    rewards_PN = table.rewards(problems)
    beta1 = experiment.train_config(variant, experiment.seeds[0]).beta1
    counts = sorted({int(v.value) for v in experiment.variants if v.value is not None})
    counts = [n for n in counts if n <= rewards_PN.shape[1]]
    errors = value_deviations(rewards_PN, beta1, counts)
    return {
        "beta1": beta1 if math.isfinite(beta1) else "inf",
        "n": counts,
        "bias": [error.bias for error in errors],
        "sd": [error.sd for error in errors],
        "num_problems": len(problems),
        "num_samples": rewards_PN.shape[1],
    }
