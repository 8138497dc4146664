"""All stages of a recipe, in order; run again, it goes on where it stopped.

    data -> [warm start ->] evaluate the reference -> estimate -> train -> evaluate the result

    recipe.json  train.parquet  test.parquet  values/  train/  base.json  trained.json  summary.json
    report.html

A recipe is a config file that serves every verb. Its tables `[test]` and `[warm-data]` say what
differs from `[data]` for held-out problems and for those of the warm start; a table `[warm-start]`
asks for a small policy of the recipe's own instead of a given `model`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from astarpo.config import (
    Config,
    DataConfig,
    EstimateConfig,
    EvaluateConfig,
    ReportConfig,
    RunConfig,
    TrainConfig,
    WarmStartConfig,
)
from astarpo.config.documents import (
    build,
    find_recipe,
    measures_kl,
    plain,
    read_recipe_file,
    settings_for,
    upgrade,
)
from astarpo.rundir.reader import has_run
from astarpo.runtime.files import DamagedFileError, read_json_object, write_json
from astarpo.runtime.outputs import check_folder
from astarpo.stages.data import data, keep_apart
from astarpo.stages.estimate import estimate
from astarpo.stages.estimate import prepare as prepare_estimate
from astarpo.stages.evaluate import evaluate
from astarpo.stages.evaluate import prepare as prepare_evaluate
from astarpo.stages.train import require_parts, train
from astarpo.stages.warm_start import prepare as prepare_warm_start
from astarpo.stages.warm_start import warm_start
from astarpo.training.inputs import TextSettings, refuse_other_text
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
    document, origin = read_recipe(config)
    return run_document(document, config.out, origin)


def read_recipe(config: RunConfig) -> tuple[dict[str, Any], str]:
    """The recipe with the config's own settings over it, and where it came from."""
    path = find_recipe(config.recipe)
    document = read_recipe_file(path, config.trust_reward)
    if config.seed is not None:  # Then it holds for every stage, whatever their tables say.
        for table in [table for table in document.values() if isinstance(table, dict)]:
            table.pop("seed", None)
    document["seed"] = document.get("seed", 0) if config.seed is None else config.seed
    if config.model:
        document |= {"model": config.model}
        document.pop("warm-start", None)
    for table, source in (("data", config.source), ("test", config.test_source)):
        if source:
            document[table] = document.get(table, {}) | {"source": source}
    return document, str(path)


def run_document(document: Mapping[str, Any], out: Path, origin: str) -> dict[str, Any]:
    """Runs a parsed recipe.

    Args:
        document: The recipe.
        out: Folder for everything.
        origin: Where the recipe came from, for messages.

    Returns:
        Scores of the reference and of the trained policy, their KL, seconds and tokens by stage.

    Raises:
        UserError: A setting or an input is wrong, or the folder holds another recipe's run.
    """
    configs = prepare_document(document, out, origin)
    write_json(out / "recipe.json", plain(document))

    stages_file = out / "stages.json"
    seconds = _finished_stages(out)
    for name, config in configs.items():
        if isinstance(config, DataConfig | WarmStartConfig) and config.out.exists():
            # What they make is there as a whole or not at all; only the time may be lost by a kill.
            seconds.setdefault(name, 0.0)
        if name in seconds:
            continue
        logger.info(f"== {name.replace('_', ' ')}")
        started = time.monotonic()
        if not _run_stage(config):
            return {"completed": False}
        seconds[name] = time.monotonic() - started
        write_json(stages_file, seconds)
    summary = _summarize(document, out, seconds)
    logger.info(report(ReportConfig(runs=[out])))
    return summary


def prepare(config: RunConfig) -> dict[str, Any]:
    """The config of every stage of a recipe, checked as far as can be before any of them runs.

    Raises:
        UserError: As `run` says.
    """
    document, origin = read_recipe(config)
    return prepare_document(document, config.out, origin)


def prepare_document(document: Mapping[str, Any], out: Path, origin: str) -> dict[str, Any]:
    """As `prepare`, of a parsed recipe.

    Raises:
        UserError: As `run_document` says.
    """
    check_folder(out, [origin], kind="a run of astarpo run", marks=("recipe.json",))
    recipe_file = out / "recipe.json"
    if recipe_file.exists():
        try:
            before = upgrade(read_json_object(recipe_file), str(recipe_file))
        except DamagedFileError as error:
            raise UserError(f"{error}; give another --out") from error
        if before != plain(document):
            raise UserError(f"{out}: holds a run of another recipe or seed; give another --out")
    stages = stage_configs(document, out, origin)
    _prepare_stages(stages, _finished_stages(out).keys())
    return stages


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


def _prepare_stages(stages: dict[str, Any], finished: Set[str]) -> None:
    """Checks what stages will need, also of problems that are not written yet.

    What is trained on and what is held out is kept apart: their settings may change by it.

    Raises:
        UserError: As `run_document` says.
    """
    require_parts(stages["train"])
    text = TextSettings(*(getattr(stages["estimate"], name) for name in TextSettings._fields))
    refuse_other_text(stages["train"], text, "[estimate]")
    apart = keep_apart(stages["train_data"], stages["test_data"])
    stages["train_data"], stages["test_data"] = apart.train, apart.test
    if "warm_start" in stages and not stages["warm_start"].out.exists():
        warm = keep_apart(stages["warm_data"], apart.test)
        stages["warm_data"] = warm.train
        prepare_warm_start(stages["warm_start"], warm.problems)
        return  # There is no model yet.
    if "evaluate_reference" not in finished:
        prepare_evaluate(stages["evaluate_reference"], apart.held_out)
    if "estimate" not in finished:
        prepare_estimate(stages["estimate"], apart.problems)


def stage_configs(document: Mapping[str, Any], out: Path, origin: str) -> dict[str, Any]:
    """The config of every stage of a recipe, in order, all checked before any of them runs.

    Raises:
        UserError: A setting is wrong.
    """

    def settings(verb: str, **own: Any) -> dict[str, Any]:
        return settings_for(verb, document, origin) | own

    stages: dict[str, Any] = {}
    train_file, test_file = out / "train.parquet", out / "test.parquet"
    made = {"overwrite": True}  # What is in the folder is its own.
    test = {"split": "test"} | document.get("test", {}) | {"out": test_file} | made
    stages["test_data"] = build(DataConfig, settings("data") | test)
    stages["train_data"] = build(DataConfig, settings("data", split="train", out=train_file) | made)
    model = {}
    if "warm-start" in document:
        warm_file = out / "warm.parquet"
        warm = {"split": "train"} | document.get("warm-data", {}) | {"out": warm_file} | made
        stages["warm_data"] = build(DataConfig, settings("data") | warm)
        model = {"model": str(out / "reference")}
        stages["warm_start"] = build(
            WarmStartConfig, settings("warm-start", problems=warm_file, out=out / "reference")
        )
    evaluation = settings("evaluate", problems=test_file) | model | made
    stages["evaluate_reference"] = build(EvaluateConfig, evaluation | {"out": out / "base.json"})
    stages["estimate"] = build(
        EstimateConfig, settings("estimate", problems=train_file, out=out / "values") | model
    )
    stages["train"] = train_config = build(
        TrainConfig,
        settings("train", problems=train_file, values=out / "values", out=out / "train")
        | model
        | {"resume": has_run(out / "train")},
    )
    trained = {"model": str(out / "train" / "model"), "out": out / "trained.json"}
    after = build(EvaluateConfig, evaluation | {"reference": None} | trained)
    stages["evaluate_trained"] = after.model_copy(update=measures_kl(after, train_config.model))
    return stages


def _run_stage(config: Config) -> bool:
    """Runs the verb a config is for; False where it stopped before its end."""
    result = _STAGES[type(config)](config)
    return not (isinstance(config, TrainConfig) and not result["completed"])


_STAGES: dict[type[Config], Callable[[Any], Any]] = {
    DataConfig: data,
    WarmStartConfig: warm_start,
    EstimateConfig: estimate,
    TrainConfig: train,
    EvaluateConfig: evaluate,
}


def _summarize(
    document: Mapping[str, Any], out: Path, seconds: Mapping[str, float]
) -> dict[str, Any]:
    base, trained, table, training = (
        read_json_object(out / name)
        for name in ("base.json", "trained.json", "values/manifest.json", "train/summary.json")
    )
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
    logger.info(_render(summary, base["scores"], trained["scores"], out))
    return summary


def _render(
    summary: Mapping[str, Any],
    base: Mapping[str, Mapping[str, float]],
    trained: Mapping[str, Mapping[str, float]],
    out: Path,
) -> str:
    """The table of base against trained, as text."""
    lines = ["", f"{'held-out':<14}{'reference':>24}{'trained':>24}"]
    for name in [name for name in base if name in trained]:
        cells = [
            "{value:.3f} [{low:.3f}, {high:.3f}]".format(**scores[name])
            for scores in (base, trained)
        ]
        lines.append(f"{name:<14}{cells[0]:>24}{cells[1]:>24}")
    if summary["kl"] is not None:
        lines.append(f"{'KL (nats)':<14}{'':>24}{summary['kl']:>24.3f}")
    seconds = ", ".join(f"{stage} {s:.0f}" for stage, s in summary["seconds"].items())
    tokens = ", ".join(f"{stage} {count:,}" for stage, count in summary["tokens"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"seconds: {seconds}",
            f"generated tokens: {tokens}",
            f"model: {out / 'train' / 'model'}    curves: {out / 'train' / 'curves.png'}",
            f"value table: {out / 'values'}    scores: {out / 'summary.json'}",
        ]
    )


def preview(config: RunConfig) -> list[str]:
    """The lines of a dry run, one a stage; raises what `prepare` raises."""
    return [f"{name}: {stage.model_dump_json()}" for name, stage in prepare(config).items()]
