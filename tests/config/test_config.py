import json
import math
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from astarpo.cli import parse
from astarpo.config import AlgorithmConfig, EstimateConfig, RunConfig, TrainConfig
from astarpo.config.documents import (
    ALGORITHM_NAMES,
    build,
    find_recipe,
    read_document,
    settings_for,
)
from astarpo.config.train import readers
from astarpo.rundir.reader import STAGES
from astarpo.stages.pipeline import stage_configs
from astarpo.types import UserError
from astarpo.verbs.run import read_recipe

RECIPES = sorted(Path(str(resources.files("astarpo"))).glob("recipes/*.toml"))
NEEDED = {"model": "m", "problems": "p", "out": "o"}


def test_a_saved_config_repeats_itself(tmp_path):
    config = build(EstimateConfig, NEEDED | {"beta1": "inf", "samples": "3"})
    assert config.beta1 == math.inf
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    assert build(EstimateConfig, settings_for("estimate", read_document(path), "x")) == config
    assert json.loads(path.read_text())["beta1"] == "Infinity"


def test_a_verbs_table_lies_over_the_top_level():
    document = {"seed": 1, "samples": 4, "train": {"seed": 2, "lr": 0.1}}
    assert settings_for("train", document, "x") == {"seed": 2, "lr": 0.1}
    assert settings_for("estimate", document, "x") == {"seed": 1, "samples": 4}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples: .*greater than or equal to 1"),
        ({"beta1": -1}, "beta1"),
        ({"beta1": "nan"}, "beta1"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": "inf"}, "temperature"),
        ({"sample": 8}, "sample: "),
        ({"model": None}, "model"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        build(EstimateConfig, NEEDED | settings)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "", "ends in .toml or .json"),
        ("a.toml", "x = ", "a.toml"),
        ("a.json", "[1]", "settings by name"),
    ],
)
def test_unreadable_config_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_document(tmp_path / name)


def test_unknown_names_in_a_file_are_refused():
    with pytest.raises(UserError, match="no such setting: learning_rate, trian"):
        settings_for("train", {"learning_rate": 1, "trian": {}}, "x")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_complete(path):
    document = {"model": "given"} | tomllib.loads(path.read_text())
    stages = stage_configs(document, Path("out"), path.name)
    assert isinstance(stages["train"], TrainConfig)
    assert stages["train"].model == stages["estimate"].model == stages["evaluate_reference"].model
    assert find_recipe(path.stem) == path
    # `runs` and `report` know the stages by these names.
    warm = {"warm_data", "warm_start"} if "warm-start" not in document else set()
    assert list(stages) == [name for name in STAGES if name not in warm]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"algorithm": "astar_po", "group_size": 4},
            "group_size: astar_po does not read",
        ),
        ({"algorithm": "grpo", "beta2": 0.1}, "beta2: grpo does not read it, but astar_po"),
        ({"algorithm": "rebel", "clip": 0.3}, "clip: rebel does not read it, but grpo, ppo"),
        ({"steps": 3, "epochs": 2}, "steps and epochs both say"),
    ],
)
def test_what_would_be_ignored_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(TrainConfig, NEEDED | settings)
    with pytest.raises(ValueError, match=message):
        TrainConfig(**NEEDED, **settings)


@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_every_setting_is_read_by_whom_it_says(algorithm):
    """Each algorithm takes all settings that name it, and a resolved config is taken again."""
    own = {n: 0.5 for n in AlgorithmConfig.model_fields if algorithm in readers(n)}
    whole = {"group_size", "critic_warmup_steps"}
    flags = {"policy_scale", "center", "std_normalize", "length_normalize"}
    own |= dict.fromkeys(own.keys() & whole, 3) | dict.fromkeys(own.keys() & flags, True)
    config = build(TrainConfig, NEEDED | {"algorithm": algorithm} | own)
    saved = json.loads(config.model_dump_json())
    assert build(TrainConfig, settings_for("train", saved, "x")) == config


def test_the_table_of_the_algorithm_is_honoured():
    document = {
        "beta1": 0.1,
        "train": {"lr": 1e-4, "algorithm": "grpo"},
        "grpo": {"lr": 1e-3, "group_size": 4},
        "rloo": {"group_size": 2},
    }
    grpo = settings_for("train", document, "x")
    assert grpo == {"lr": 1e-3, "algorithm": "grpo", "group_size": 4}
    assert settings_for("train", document, "x", "rloo")["group_size"] == 2
    assert settings_for("train", document, "x", "astar_po")["beta1"] == 0.1


@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_trains_by_every_algorithm(path, algorithm):
    words = ["train", "--config", str(path), "--algorithm", algorithm, "--problems", "p"]
    config, _ = parse([*words, "--model", "m", "--out", "o"])
    assert isinstance(config, TrainConfig)


def test_a_flag_for_the_length_is_instead_of_the_files(tmp_path):
    (tmp_path / "c.toml").write_text('model = "m"\nproblems = "p"\nout = "o"\nepochs = 3\n')
    config, _ = parse(["train", "--config", str(tmp_path / "c.toml"), "--steps", "7"])
    assert isinstance(config, TrainConfig)
    assert (config.steps, config.epochs) == (7, 25)


def test_a_recipes_own_seed_counts_unless_another_is_given(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('seed = 5\n[data]\ntask = "multiply"\n[train]\nseed = 6\n')
    for given, seeds in ((None, (5, 5, 6)), (0, (0, 0, 0)), (9, (9, 9, 9))):
        config = RunConfig(recipe=str(path), model="m", out=tmp_path / "o", seed=given)
        stages = stage_configs(*_recipe(config))
        found = tuple(stages[name].seed for name in ("train_data", "estimate", "train"))
        assert found == seeds


def _recipe(config):
    document, origin = read_recipe(config)
    return document, config.out, origin


def test_published_recipes_hold_the_published_settings():
    for size in ("1.5b", "3b", "7b"):
        for task in ("gsm8k", "math"):
            path = find_recipe(f"{task}-qwen2.5-{size}")
            stages = stage_configs(read_document(path), Path("out"), path.name)
            train, estimate = stages["train"], stages["estimate"]
            assert train.model == f"Qwen/Qwen2.5-{size.upper()}"
            assert (train.beta1, train.beta2, train.lr) == (0.5, 1e-3, 1e-6)
            assert (train.prompts_per_step, train.minibatches, train.epochs) == (256, 2, 25)
            assert (train.grad_clip, train.weight_decay, train.warmup_steps) == (1.0, 0.01, 0)
            assert (train.filter, train.schedule) == ("none", "constant")
            assert (estimate.samples, estimate.temperature) == (8, 1.0)
            assert (estimate.max_prompt_tokens, estimate.max_new_tokens) == (256, 1024)
            assert estimate.prompt_format == "raw"
