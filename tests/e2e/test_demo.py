"""The policy that the demo ships, and the demo's own entry."""

import importlib
from importlib import resources
from pathlib import Path

import astarpo
from astarpo.config import DataConfig, DemoConfig, EvaluateConfig
from astarpo.stages.data import data

POLICY = Path(str(resources.files("astarpo"))) / "assets" / "demo-policy"


def test_shipped_policy_is_small_and_right_about_half_of_the_time(tmp_path):
    assert (POLICY / "model.safetensors").stat().st_size < 4e6
    data(DataConfig(task="arithmetic", split="test", limit=64, out=tmp_path / "p.parquet"))
    result = astarpo.evaluate(
        EvaluateConfig(
            model=str(POLICY), problems=tmp_path / "p.parquet", out=tmp_path / "e.json",
            samples=4, max_new_tokens=64, device="cpu",
        )
    )  # fmt: skip
    assert 0.4 < result["avg_at_4"].value < 0.65
    assert result.details["truncated_share"] < 0.02


def test_demo_runs_the_shipped_recipe(tmp_path, monkeypatch):
    asked = []
    module = importlib.import_module(
        "astarpo.verbs.demo"
    )  # the name `astarpo.verbs.demo` is the verb
    monkeypatch.setattr(module, "run", lambda config: asked.append(config) or {})
    astarpo.demo(DemoConfig(out=tmp_path, seed=3))
    (config,) = asked
    assert (config.recipe, config.seed, config.out) == ("demo", 3, tmp_path)
    assert Path(config.model) == POLICY
    assert (POLICY / "config.json").exists()
