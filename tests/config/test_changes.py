import math
from pathlib import Path

import pytest

from astarpo.config import RunConfig
from astarpo.config.changes import apply_changes
from astarpo.stages.pipeline import stage_configs
from astarpo.types import UserError
from astarpo.verbs.run import read_recipe


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("train.lr=2e-6", {"train": {"lr": 2e-6, "steps": 5}}),
        ("train.steps = 7", {"train": {"lr": 1e-6, "steps": 7}}),
        ("data.limit=64", {"data": {"limit": 64}}),
        ("beta1=inf", {"beta1": "inf"}),
        ("train.filter=all_wrong", {"train": {"lr": 1e-6, "steps": 5, "filter": "all_wrong"}}),
        ('train.filter="none"', {"train": {"lr": 1e-6, "steps": 5, "filter": "none"}}),
        ("data.source=a=b c.jsonl", {"data": {"source": "a=b c.jsonl"}}),
        ("train.gradient_checkpointing=true",
         {"train": {"lr": 1e-6, "steps": 5, "gradient_checkpointing": True}}),
    ],
)  # fmt: skip
def test_one_change(change, changed):
    document = {"seed": 1, "train": {"lr": 1e-6, "steps": 5}}
    assert apply_changes(document, [change]) == document | changed
    assert document == {"seed": 1, "train": {"lr": 1e-6, "steps": 5}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.lr", "write TABLE.SETTING=VALUE, such as train.lr=2e-6"),
        ("=3", "write TABLE.SETTING=VALUE"),
        ("trian.lr=3", "no such table: trian; did you mean train"),
        ("variants.lr=3", r"write variants.NAME.lr=VALUE"),
        ("variants.publishd.lr=3", r"no \[variants.publishd\]; did you mean published"),
        ("variants.published.lrr=3", "variants has no setting lrr; did you mean lr"),
        ("train.published.lr=3", "no such table: train.published"),
        ("train.lrr=3", "train has no setting lrr; did you mean lr?"),
        ("train.task=3", "train has no setting task, but data, "),
        ("sampels=3", "there is no setting sampels; did you mean samples?"),
        ("train.out=x", "go below --out"),
    ],
)
def test_wrong_changes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        apply_changes({"variants": {"published": {"algorithm": "astar_po"}}}, [change])


def test_a_table_with_a_name_is_changed():
    document = {
        "variants": {"a": {"algorithm": "spo"}, "b": {"algorithm": "grpo"}},
        "ood": {"x": {}},
    }
    changed = apply_changes(document, ["variants.a.lr=2e-6", "ood.x.size=3"])
    assert changed["variants"] == document["variants"] | {"a": {"algorithm": "spo", "lr": 2e-6}}
    assert changed["ood"] == {"x": {"size": 3}}
    assert document["ood"] == {"x": {}}


def stages(**settings):
    config = RunConfig(recipe="demo", model="m", out=Path("out"), **settings)
    document, origin = read_recipe(config)
    return stage_configs(document, config.out, origin)


def test_a_run_is_changed_and_put_on_a_device():
    changes = ("train.lr=2e-6", "data.limit=64", "estimate.beta1=inf", "seed=3")
    found = stages(set=changes, device="cpu")
    assert found["train"].lr == 2e-6
    assert found["train_data"].limit == 64
    assert found["estimate"].beta1 == math.inf
    assert found["test_data"].limit == 512  # The recipe's own, for tests.
    for name in ("estimate", "train", "evaluate_reference", "evaluate_trained"):
        assert found[name].device == "cpu"
        assert found[name].seed == 3
    assert stages(set=("train.seed=4",))["train"].seed == 4
    assert stages(set=("train.seed=4",), seed=5)["train"].seed == 5
    assert stages(set=("train.device=cuda",), device="cpu")["train"].device == "cpu"
