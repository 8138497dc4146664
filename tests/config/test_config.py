import ast
import json
import math
import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from astarpo.cli import parse
from astarpo.config import AlgorithmConfig, EstimateConfig, RunConfig, TrainConfig
from astarpo.config.documents import (
    VERBS,
    build,
    find_recipe,
    read_document,
    settings_for,
    upgrade,
)
from astarpo.config.setting import ALGORITHM_NAMES, Setting, setting_of
from astarpo.config.train import readers
from astarpo.rundir.reader import STAGES
from astarpo.stages.pipeline import stage_configs
from astarpo.types import UserError
from astarpo.verbs.run import read_recipe

SOURCE = Path(str(resources.files("astarpo")))
RECIPES = sorted(SOURCE.glob("recipes/*.toml"))
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


def test_a_recipe_that_says_how_often_is_scored_while_it_trains():
    document = {"model": "given", "data": {"task": "arithmetic"}, "train": {"eval_every": 5}}
    train = stage_configs(document, Path("out"), "x")["train"]
    assert (train.eval_every, train.eval_problems) == (5, Path("out/test.parquet"))
    train = stage_configs(document | {"train": {}}, Path("out"), "x")["train"]
    assert train.eval_problems is None


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
        ({"stage1_drift": 0.1}, "stage1_drift says when first_rollouts stage1 ends: give that"),
        (
            {"baseline_from": "rollout", "first_rollouts": "stage1", "values": "v"},
            "first_rollouts stage1 goes with V\\*, which baseline_from rollout does not read",
        ),
        (
            {"baseline_from": "rollout", "estimator": "shrunk"},
            "estimator tells how V\\* is estimated, which baseline_from rollout does not read",
        ),
        ({"baseline_from": "rollout", "values_samples": 2}, "values_samples tells how V"),
        ({"algorithm": "grpo", "baseline_from": "rollout"}, "baseline_from: grpo does not read"),
    ],
)
def test_what_would_be_ignored_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(TrainConfig, NEEDED | settings)
    with pytest.raises(ValueError, match=message):
        TrainConfig(**NEEDED, **settings)


def test_a_bound_is_taken_with_what_it_bounds():
    both = {"first_rollouts": "stage1", "stage1_drift": 0.1}
    assert build(TrainConfig, NEEDED | both).stage1_drift == 0.1


@pytest.mark.parametrize(
    "settings", [{}, {"values": "v", "filter": "all_wrong", "estimator": "shrunk"}]
)
def test_what_the_messages_about_the_baseline_tell_to_do(settings):
    settings = {"baseline_from": "rollout"} | settings
    assert build(TrainConfig, NEEDED | settings).baseline_from == "rollout"


@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_every_setting_is_read_by_whom_it_says(algorithm):
    """Each algorithm takes all settings that name it, and a resolved config is taken again."""
    own = {n: 0.5 for n in AlgorithmConfig.model_fields if algorithm in readers(n)}
    whole = {"group_size", "critic_warmup_steps"}
    flags = {"std_normalize", "length_normalize"}
    own |= dict.fromkeys(own.keys() & whole, 3) | dict.fromkeys(own.keys() & flags, True)
    own |= dict.fromkeys(own.keys() & {"estimator"}, "shrunk")
    own |= dict.fromkeys(own.keys() & {"first_rollouts"}, "stage1")
    own |= dict.fromkeys(own.keys() & {"baseline_from"}, "v_star")
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


def test_a_recipes_table_for_an_algorithm_is_honoured_by_train(tmp_path):
    (tmp_path / "c.toml").write_text(
        'model = "m"\nproblems = "p"\nout = "o"\n[train]\nlr = 1e-4\n'
        "[grpo]\nlr = 1e-3\ngroup_size = 4\n[ppo]\nlr = 1e-2\n"
    )
    words = ["train", "--config", str(tmp_path / "c.toml")]
    for algorithm, lr, size in (("grpo", 1e-3, 4), ("ppo", 1e-2, 8), ("astar_po", 1e-4, 8)):
        config, _ = parse([*words, "--algorithm", algorithm])
        assert isinstance(config, TrainConfig)
        assert (config.algorithm, config.lr, config.group_size) == (algorithm, lr, size)
    config, _ = parse([*words, "--algorithm", "grpo", "--lr", "0.5"])
    assert isinstance(config, TrainConfig)
    assert config.lr == 0.5


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


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_published_recipes_hold_the_published_settings(task):
    for size in ("1.5B", "3B", "7B"):
        model = f"Qwen/Qwen2.5-{size}"
        given = model if size != "1.5B" else None  # The recipe's own.
        stages = stage_configs(*_recipe(RunConfig(recipe=task, model=given, out=Path("out"))))
        train, estimate = stages["train"], stages["estimate"]
        assert {stages[n].model for n in ("train", "estimate", "evaluate_reference")} == {model}
        assert (train.beta1, train.beta2, train.lr) == (0.5, 1e-3, 1e-6)
        assert (train.prompts_per_step, train.minibatches, train.epochs) == (256, 2, 25)
        assert (train.grad_clip, train.weight_decay, train.warmup_steps) == (1.0, 0.01, 0)
        assert (train.filter, train.schedule) == ("none", "constant")
        assert (estimate.samples, estimate.temperature) == (8, 1.0)
        assert (estimate.max_prompt_tokens, estimate.max_new_tokens) == (256, 1024)
        assert estimate.prompt_format == "raw"


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_is_declared_with_a_group_and_help_in_whole_sentences(verb):
    for name, field in VERBS[verb].model_fields.items():
        setting = setting_of(field)
        assert isinstance(setting, Setting), name
        assert setting.readers
        assert field.description, name
        assert re.fullmatch(r"[A-Z].*\.", field.description, re.DOTALL), name


def test_settings_are_listed_nowhere_but_where_they_are_declared():
    """Outside of `config`, no set or tuple names three settings of training or more."""
    names = TrainConfig.model_fields.keys()
    for path in sorted(SOURCE.rglob("*.py")):
        if path.is_relative_to(SOURCE / "config"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Set | ast.Tuple | ast.List):
                texts = [item.value for item in node.elts if isinstance(item, ast.Constant)]
                listed = [text for text in texts if text in names]
                assert len(listed) < 3, f"{path}, line {node.lineno}: {listed}"


OLD = Path(__file__).parent / "train-0.1.0.json"
"""The `config.json` that version 0.1.0 wrote of a run whose problems a user's function judges."""


def test_a_config_of_version_0_1_0_is_read_and_means_the_same(tmp_path):
    config = build(TrainConfig, settings_for("train", read_document(OLD), "x"))
    before = json.loads(OLD.read_text())
    assert config.trust_reward == before.pop("reward") == "rewards.py:score"
    for name in ("center", "policy_scale", "residual_clip"):
        del before[name]
    after = json.loads(config.model_dump_json(exclude={"trust_reward"}))
    assert after.pop("clip_high") == 0.28  # of an algorithm that it did not have
    assert (after.pop("first_rollouts"), after.pop("stage1_drift")) == ("policy", 0.5)
    assert after.pop("estimator") == "plugin"  # which was the only one
    assert after.pop("baseline_from") == "v_star"
    assert after.pop("engine_memory") is None  # vLLM's
    assert after.pop("fp32_head") is False
    assert after.pop("shard_size") is None
    assert after.pop("policy_offload") is False
    assert after == before
    words = ["train", "--config", str(OLD)]
    with pytest.raises(
        UserError, match=r"asks to run the function.*--trust-reward rewards\.py:score"
    ):
        parse(words)
    assert parse([*words, "--trust-reward", "rewards.py:score"])[0] == config
    (tmp_path / "null.json").write_text(OLD.read_text().replace('"rewards.py:score"', "null"))
    config, _ = parse(["train", "--config", str(tmp_path / "null.json")])
    assert config.trust_reward is None


@pytest.mark.parametrize(
    ("name", "value"), [("center", "true"), ("policy_scale", "true"), ("residual_clip", "0.3")]
)
def test_settings_that_were_removed_are_refused_where_they_were_used(tmp_path, name, value):
    old = re.sub(rf'"{name}": \w+', f'"{name}": {value}', OLD.read_text())
    (tmp_path / "old.json").write_text(old)
    with pytest.raises(
        UserError, match=rf"old.json: {name} was measured, did not help and was rem"
    ):
        read_document(tmp_path / "old.json")
    (tmp_path / "old.toml").write_text(f"[variants.a]\n{name} = {value}\n")
    with pytest.raises(UserError, match=f"old.toml: {name} was measured"):
        read_document(tmp_path / "old.toml")


def test_a_recipe_of_version_0_1_0_says_reward_to_each_verb():
    function = "mine.py:f"
    old = {
        "reward": function,
        "data": {"reward": function},
        "ood": {"train": {"reward": function}},
        "estimate": {"reward": function},
        "variants": {"a": {"reward": function, "center": False}},
    }
    new = {
        "reward": function,
        "trust_reward": function,
        "data": {"reward": function},
        "ood": {"train": {"reward": function}},
        "estimate": {"trust_reward": function},
        "variants": {"a": {"trust_reward": function}},
    }
    assert upgrade(old, "x") == new == upgrade(new, "x")
    # A task's name let nothing run.
    assert upgrade({"reward": "gsm8k"}, "x") == {"reward": "gsm8k"}
