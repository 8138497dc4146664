"""The verb `run`: all stages of a recipe, in order; run again, it goes on where it stopped.

    recipe.json  train.parquet  test.parquet  values/  train/  base.json  trained.json  summary.json
    report.html

A recipe is a config file that serves every verb. Its tables `[test]` and `[warm-data]` say what
differs from `[data]` for held-out problems and for those of the warm start; a table `[warm-start]`
asks for a small policy of the recipe's own instead of a given `model`.
"""

import logging
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astarpo.config import ReportConfig, ResourcesConfig, RunConfig, TrainConfig
from astarpo.config.changes import read_recipe_file
from astarpo.config.documents import (
    find_recipe,
    plain,
    resources_of,
    upgrade,
)
from astarpo.reports.cards import write_model_card
from astarpo.runtime.distributed import OneProcess, open_ranks
from astarpo.runtime.files import DamagedFileError, read_json_object, write_json
from astarpo.runtime.launch import read_launch
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.tables import text_table
from astarpo.stages.foresight import plan_stages, refuse_unfit
from astarpo.stages.pipeline import is_made, prepare_stages, run_stage, stage_configs
from astarpo.tasks.problem_set import count_problems
from astarpo.types import UserError
from astarpo.verbs.report import report

logger = logging.getLogger("astarpo")


def run(config: RunConfig) -> dict[str, Any]:
    """Runs a recipe from data to the evaluated policy.

    Returns:
        What `summary.json` says; see `run_document`.

    Raises:
        UserError: The recipe or an input is wrong.
    """
    with open_ranks() as where:
        with where.together():
            document, origin = read_recipe(config)
            resources = resources_of(document, origin)
            require_processes(resources, config)
            refuse_unfit(stage_configs(document, config.out, origin), resources)
        return run_document(document, config.out, origin)


def prepare(config: RunConfig) -> dict[str, Any]:
    """The config of every stage of a recipe, checked as far as possible before any of them runs."""
    document, origin = read_recipe(config)
    return prepare_document(document, config.out, origin)


def require_processes(resources: ResourcesConfig, config: RunConfig) -> None:
    """Checks that a recipe runs on the devices that it is for.

    Raises:
        UserError: torchrun has started another number of processes, or none has.
    """
    if resources.tensor_parallel > 1:
        raise UserError(
            "[resources] tensor_parallel: no engine here spreads a model over devices; leave it "
            "out, or sample elsewhere and read the table by astarpo import-values"
        )
    if not {"nodes", "devices"} & resources.model_fields_set:
        return
    wanted, found = resources.nodes * resources.devices, read_launch().size
    if wanted == found:
        return
    words = ["torchrun", "--nproc-per-node", str(resources.devices)]
    if resources.nodes > 1:
        words += ["--nnodes", str(resources.nodes), "--rdzv-backend", "c10d"]
        words += ["--rdzv-endpoint", "FIRST_NODE:29500"]
    words += ["-m", "astarpo", "run", config.recipe, "--out", str(config.out)]
    if wanted == 1:
        words = ["astarpo", *words[words.index("run") :]]
    on_each = " on each node" if resources.nodes > 1 else ""
    raise UserError(
        f"[resources] asks for {wanted} devices, one process each, and here are {found}: start it "
        f"by {shlex.join(words)}{on_each}, with your other flags; or give --set resources.nodes=1 "
        f"--set resources.devices={found} for what is here"
    )


def run_document(document: Mapping[str, Any], out: Path, origin: str) -> dict[str, Any]:
    """Runs a parsed recipe, whose origin is for messages, in the folder `out`.

    Returns:
        Scores of the reference and of the trained policy, their KL, seconds and tokens by stage;
        `{"completed": False}` where a signal stopped the training.

    Raises:
        UserError: A setting or an input is wrong, or the folder holds another recipe's run or is
            being written by another process.
    """
    with open_ranks() as where:
        with where.together():
            stages = prepare_document(document, out, origin)
        where.require_alike({"the recipe": plain(document)})
        with where.locked(out):
            return _run_stages(document, out, stages, where)


def _run_stages(
    document: Mapping[str, Any], out: Path, stages: Mapping[str, Any], where: OneProcess
) -> dict[str, Any]:
    """Runs the stages that are not done yet; returns the summary of all."""
    seconds = where.first(lambda: _begin(document, out, stages))
    if "estimate" not in stages:
        logger.info(f"no stage 1: {_called(stages['train'])} reads no value table")
    for name, config in stages.items():
        if name in seconds:
            continue
        logger.info(f"== {name.replace('_', ' ')}")
        started = time.monotonic()
        if not run_stage(config):
            return {"completed": False}
        seconds[name] = time.monotonic() - started
        where.first(lambda: write_json(out / "stages.json", seconds))

    def end() -> dict[str, Any]:
        summary = _summarize(document, out, seconds)
        logger.info(report(ReportConfig(runs=[out])))
        return summary

    return where.first(end)


def _begin(document: Mapping[str, Any], out: Path, stages: Mapping[str, Any]) -> dict[str, float]:
    """Writes the recipe; returns the seconds of the stages that are done."""
    _require_same_recipe(document, out)  # Another may have begun here since.
    write_json(out / "recipe.json", plain(document))
    seconds = _finished_stages(out)
    for name, config in stages.items():
        if is_made(config):
            seconds.setdefault(name, 0.0)
    if "estimate" not in stages:  # What a recipe does without is done, in no time.
        seconds.setdefault("estimate", 0.0)
        write_json(out / "stages.json", seconds)
    return seconds


def _called(config: TrainConfig) -> str:
    """An algorithm in words."""
    by_rollout = config.algorithm == "astar_po" and config.baseline_from == "rollout"
    return f"{config.algorithm}{' with baseline_from rollout' if by_rollout else ''}"


def prepare_document(document: Mapping[str, Any], out: Path, origin: str) -> dict[str, Any]:
    """As `prepare`, of a parsed recipe."""
    check_folder(out, [origin], kind="a run of astarpo run", marks=("recipe.json",))
    _require_same_recipe(document, out)
    return prepare_stages(stage_configs(document, out, origin), _finished_stages(out).keys())


def read_recipe(config: RunConfig) -> tuple[dict[str, Any], str]:
    """The recipe with the config's own settings over it, and where it came from."""
    path = find_recipe(config.recipe)
    document = read_recipe_file(path, config.set, config.trust_reward)
    for name in ("seed", "device"):
        if getattr(config, name) is not None:  # For every stage, whatever their tables say.
            for table in document.values():
                if isinstance(table, dict):
                    table.pop(name, None)
            document[name] = getattr(config, name)
    document.setdefault("seed", 0)
    if config.model:
        document["model"] = config.model
        document.pop("warm-start", None)
    for table, source in (("data", config.source), ("test", config.test_source)):
        if source:
            document[table] = document.get(table, {}) | {"source": source}
    return document, str(path)


def _require_same_recipe(document: Mapping[str, Any], out: Path) -> None:
    path = out / "recipe.json"
    if not path.exists():
        return
    try:
        before = upgrade(read_json_object(path), str(path))
    except DamagedFileError as error:
        raise UserError(f"{error}; give another --out") from error
    if _asked(before) != _asked(plain(document)):
        raise UserError(
            f"{out}: holds a run of another recipe or seed, or with other --set; give another --out"
        )


def _asked(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe computes, wherever it is done."""
    asked = {
        name: _asked(value) if isinstance(value, Mapping) else value
        for name, value in document.items()
        if name not in ("device", "resources")
    }
    engine = document.get("resources", {}).get("engine")
    return asked | ({"engine": engine} if engine else {})


def _finished_stages(out: Path) -> dict[str, float]:
    """Seconds of the stages that are done; none where that is no longer known."""
    path = out / "stages.json"
    if not path.exists():
        return {}
    try:
        return read_json_object(path)
    except DamagedFileError as error:
        logger.warning(f"{error}; every stage is gone through again")
        return {}


def _summarize(
    document: Mapping[str, Any], out: Path, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Writes summary.json and shows it."""
    base, trained, training = (
        read_json_object(out / name) for name in ("base.json", "trained.json", "train/summary.json")
    )
    table = {"tokens": 0, "num_problems": count_problems(out / "train.parquet")}
    if seconds["estimate"]:
        table = read_json_object(out / "values" / "manifest.json")
    summary = {
        "seed": document.get("seed", 0),
        "model": base["model"],
        "num_problems": {"train": table["num_problems"], "test": base["num_problems"]},
        "reference": {name: score["value"] for name, score in base["scores"].items()},
        "trained": {name: score["value"] for name, score in trained["scores"].items()},
        "kl": trained["scores"].get("kl", {}).get("value"),
        "seconds": {
            "warm_start": seconds.get("warm_start", 0.0),
            "estimate": seconds["estimate"],
            "train": seconds["train"],
            "evaluate": seconds["evaluate_reference"] + seconds["evaluate_trained"],
            "total": sum(seconds.values()),
        },
        "tokens": {"estimate": table["tokens"], "train": training["tokens"]},
        "steps": training["steps"],
        "peak_memory_gib": training["peak_memory_gib"],
        "package_version": base["package_version"],
    }
    write_json(out / "summary.json", summary)
    write_model_card(out)  # Once more, with the scores.
    logger.info(_render(summary, base["scores"], trained["scores"], out))
    return summary


def _render(
    summary: Mapping[str, Any],
    base: Mapping[str, Mapping[str, float]],
    trained: Mapping[str, Mapping[str, float]],
    out: Path,
) -> str:
    """What a user sees at the end: reference against trained, costs, paths."""
    interval = "{value:.3f} [{low:.3f}, {high:.3f}]"
    rows = [("held-out", "reference", "trained")]
    rows += [
        (name, interval.format(**base[name]), interval.format(**trained[name]))
        for name in base
        if name in trained
    ]
    if summary["kl"] is not None:
        rows.append(("KL (nats)", "", f"{summary['kl']:.3f}"))
    seconds = ", ".join(f"{stage} {s:.0f}" for stage, s in summary["seconds"].items())
    tokens = ", ".join(f"{stage} {count:,}" for stage, count in summary["tokens"].items())
    table = f"value table: {out / 'values'}    " if summary["tokens"]["estimate"] else ""
    return "\n".join(
        [
            "",
            *text_table(rows, right={1, 2}),
            "",
            f"seconds: {seconds}",
            f"generated tokens: {tokens}",
            f"model: {out / 'train' / 'model'}    curves: {out / 'train' / 'curves.png'}",
            f"{table}scores: {out / 'summary.json'}",
        ]
    )


def preview(config: RunConfig) -> list[str]:
    """The lines of a dry run: each stage's config, and the plan; raises what `prepare` raises."""
    document, origin = read_recipe(config)
    stages = prepare_document(document, config.out, origin)
    lines = [f"{name}: {stage.model_dump_json()}" for name, stage in stages.items()]
    resources = resources_of(document, origin)
    return [*lines, "", *plan_stages(Path(config.recipe).stem, stages, resources).splitlines()]
