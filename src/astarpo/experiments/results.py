"""Collects the results of an experiment's finished runs from their files alone."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from astarpo.config import TrainConfig
from astarpo.config.documents import build
from astarpo.experiments import records
from astarpo.experiments.plan import TEST, Cost, Experiment, Variant, algorithm_of
from astarpo.experiments.records import Curves, Run, ToTarget
from astarpo.rundir.reader import read_json, read_settings, whole_rows
from astarpo.runtime.version import package_version
from astarpo.tasks.problem_set import read_problems
from astarpo.values.deviations import value_deviations
from astarpo.values.table import ValueTable

_TARGET_STEP = 0.05


def is_finished(summary: Mapping[str, Any]) -> bool:
    """Whether a summary says that training has ended for good: it is complete or collapsed."""
    return bool(summary.get("completed")) or "reason" in summary


def stage1_cost(path: Path, num_samples: int | None) -> Cost:
    """Cost of the first `num_samples` of each problem, None for all; seconds go by tokens."""
    table = ValueTable(path)
    samples = table.samples(["sample", "num_tokens"])
    number, tokens = samples["sample"].to_numpy(), samples["num_tokens"].to_numpy()
    is_used = number < (num_samples or math.inf)
    used = int(tokens[is_used].sum())
    seconds = sum(table.manifest.get("seconds", {}).values()) * used / int(tokens.sum())
    memory_gib = table.manifest.get("peak_memory_gib", 0.0)
    return Cost(seconds, int(is_used.sum()), used, memory_gib)


def collect_results(experiment: Experiment) -> records.Experiment:
    """The results of every finished run, as `results.json` has them."""
    cost = cache(stage1_cost)
    found = (_read_row(experiment, variant, seed, cost) for variant, seed in experiment.runs())
    rows = [row for row in found if row]
    target = common_target(rows) if experiment.target is None else experiment.target
    if target is not None:
        rows = [row.model_copy(update={"to_target": cost_of(row.curve, target)}) for row in rows]
    reference = _read_reference(experiment, experiment.variants[0])
    if len({variant.data for variant in experiment.variants}) > 1:
        del reference[TEST]
    return records.Experiment.model_validate(
        {
            "kind": experiment.kind,
            "setting": experiment.setting,
            "equal": experiment.equal,
            "target": target,
            "seeds": experiment.seeds,
            "reference": reference,
            "rows": rows,
            "value_error": _value_error(experiment) if experiment.setting == "samples" else None,
            "package_version": package_version(),
        }
    )


def common_target(rows: Sequence[Run]) -> float | None:
    """The largest multiple of 0.05 that the held-out reward of every uncollapsed run reaches.

    Returns:
        None where it is not above the first held-out reward of every run.
    """
    curves = [row.curve.reward for row in rows if not row.collapsed]
    if not curves or not all(curves):
        return None
    worst = min(map(max, curves))
    # Rounding keeps 0.85 from being just below 17 times 0.05.
    target = round(math.floor(round(worst / _TARGET_STEP, 6)) * _TARGET_STEP, 2)
    return target if target > max(curve[0] for curve in curves) else None


def cost_of(curve: Curves, target: float) -> ToTarget | None:
    """Cost at which a held-out reward is first reached, interpolated; None where it never is."""
    rewards = curve.reward
    i = next((i for i, reward in enumerate(rewards) if reward >= target), None)
    if i is None:
        return None
    before = max(i - 1, 0)
    share = (target - rewards[before]) / (rewards[i] - rewards[before]) if i else 0.0
    steps, seconds, tokens = (
        column[before] + share * (column[i] - column[before])
        for column in (curve.step, curve.seconds, curve.tokens)
    )
    return ToTarget(steps=steps, seconds=seconds, tokens=tokens)


def _read_row(experiment: Experiment, variant: Variant, seed: int, cost: Any) -> Run | None:
    """One run without its cost to the target; None where it is not finished."""
    path = experiment.run_path(variant, seed)
    summary = read_json(path / "summary.json")
    evaluations = experiment.evaluate_configs(variant, seed)
    if not is_finished(summary):
        return None
    collapsed = "reason" in summary
    scores = {}
    if not collapsed:
        if not all(config.out.exists() for config in evaluations.values()):
            return None
        scores = {name: read_json(config.out)["scores"] for name, config in evaluations.items()}
    settings = read_settings(path)
    stage1 = Cost()
    if settings["values"] is not None:
        table = experiment.estimate_config(variant, seed).out
        stage1 = cost(table, settings["values_samples"])
    return Run.model_validate(
        {
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
            "kl": scores.get(TEST, {}).get("kl", {}).get("value"),
            "reference": _read_reference(experiment, variant),
            "scores": scores,
            "curve": _curve(whole_rows(path / "evaluations.jsonl"), stage1),
            "training": _training(whole_rows(path / "metrics.jsonl"), stage1),
        }
    )


def _read_reference(experiment: Experiment, variant: Variant) -> dict[str, Any]:
    configs = experiment.reference_configs(variant)
    return {name: read_json(config.out).get("scores", {}) for name, config in configs.items()}


def _curve(rows: Sequence[Mapping[str, Any]], stage1: Cost) -> dict[str, list[float]]:
    return {
        "step": [row["step"] for row in rows],
        "seconds": [row["seconds"] + stage1.seconds for row in rows],
        "tokens": [row["tokens"] + stage1.tokens for row in rows],
        "reward": [row["reward"] for row in rows],
    }


def _training(rows: Sequence[Mapping[str, Any]], stage1: Cost) -> dict[str, list[float]]:
    seconds = list(accumulate((row["seconds"] for row in rows), initial=stage1.seconds))[1:]
    kept = {name: [row[name] for row in rows] for name in ("step", "reward", "kl", "loss")}
    return {"seconds": seconds, **kept}


def _value_error(experiment: Experiment) -> dict[str, Any] | None:
    """Error of V^* by the number of samples, from the value table of the first seed."""
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
