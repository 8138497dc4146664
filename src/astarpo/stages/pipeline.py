"""The stages of a recipe: their settings, what is checked before any of them runs, running one.

data -> [warm start ->] evaluate the reference -> [estimate ->] train -> evaluate the result

Stage 1, `estimate`, is left out where nothing of stage 2 reads a value table.
"""

from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from astarpo.algorithms.choice import needs_table
from astarpo.config import (
    Config,
    DataConfig,
    EstimateConfig,
    EvaluateConfig,
    TrainConfig,
    WarmStartConfig,
)
from astarpo.config.documents import build, measures_kl, settings_for
from astarpo.rundir.reader import has_run
from astarpo.stages.data import data, keep_apart
from astarpo.stages.estimate import estimate
from astarpo.stages.estimate import prepare as prepare_estimate
from astarpo.stages.evaluate import evaluate
from astarpo.stages.evaluate import prepare as prepare_evaluate
from astarpo.stages.train import prepare as prepare_train
from astarpo.stages.train import train
from astarpo.stages.warm_start import prepare as prepare_warm_start
from astarpo.stages.warm_start import warm_start
from astarpo.training.inputs import Given, TextSettings, refuse_other_text, text_of_stages
from astarpo.training.opening import require_parts

_VERBS: dict[type[Config], Callable[[Any], Any]] = {
    DataConfig: data,
    WarmStartConfig: warm_start,
    EstimateConfig: estimate,
    TrainConfig: train,
    EvaluateConfig: evaluate,
}


def stage_configs(document: Mapping[str, Any], out: Path, origin: str) -> dict[str, Any]:
    """The config of every stage of a recipe, in order; `origin` names the recipe in messages."""

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
    stage1 = build(
        EstimateConfig, settings("estimate", problems=train_file, out=out / "values") | model
    )
    # A recipe that says how often is scored on its test problems while it trains.
    watched = {"eval_problems": test_file} if "eval_every" in document.get("train", {}) else {}
    training = settings("train", problems=train_file, out=out / "train")
    training |= watched | model | {"resume": has_run(out / "train")}
    train_config = build(TrainConfig, training | {"values": stage1.out})
    if needs_table(train_config, stage1.max_new_tokens):
        stages["estimate"] = stage1
    else:  # What is asked, and how, is the same without a table that says so.
        train_config = build(TrainConfig, TextSettings.of(stage1)._asdict() | training)
    stages["train"] = train_config
    trained = {"model": str(out / "train" / "model"), "out": out / "trained.json"}
    after = build(EvaluateConfig, evaluation | {"reference": None} | trained)
    stages["evaluate_trained"] = after.model_copy(update=measures_kl(after, train_config.model))
    return stages


def prepare_stages(stages: Mapping[str, Any], finished: Set[str]) -> dict[str, Any]:
    """Checks what unfinished stages will need, also of problems that are not written yet.

    Returns:
        The configs, those of the problems such that training and held-out ones are kept apart.
    """
    stages = dict(stages)
    require_parts(stages["train"])
    refuse_other_text(stages["train"], text_of_stages(stages), "[estimate]")
    apart = keep_apart(stages["train_data"], stages["test_data"])
    stages["train_data"], stages["test_data"] = apart.train, apart.test
    if "warm_start" in stages and not stages["warm_start"].out.exists():
        warm = keep_apart(stages["warm_data"], apart.test)
        stages["warm_data"] = warm.train
        prepare_warm_start(stages["warm_start"], warm.problems)
        return stages  # The others' model is not there yet.
    if "evaluate_reference" not in finished:
        prepare_evaluate(stages["evaluate_reference"], apart.held_out)
    if "estimate" in stages and "estimate" not in finished:
        prepare_estimate(stages["estimate"], apart.problems)
    if "estimate" not in stages and "train" not in finished:
        prepare_train(stages["train"], Given(apart.problems, apart.held_out))
    return stages


def is_made(config: Config) -> bool:
    """Whether a stage's result is complete, though a kill kept its time from being recorded."""
    return isinstance(config, DataConfig | WarmStartConfig) and config.out.exists()


def run_stage(config: Config) -> bool:
    """Runs the verb that a config is for; False where a signal stopped it before its end."""
    result = _VERBS[type(config)](config)
    return not (isinstance(config, TrainConfig) and not result["completed"])
