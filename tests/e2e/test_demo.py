"""The policies that are shipped, and the demo's own entry."""

import importlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import astarpo
from astarpo.config import DataConfig, DemoConfig, EvaluateConfig
from astarpo.config.base import find_shipped
from astarpo.stages.data import data
from astarpo.types import UserError
from astarpo.verbs.demo_policy import POLICIES


def solve_rates(policy, folder):
    """Greedy and sampled solve rates of 192 held-out sums, by problem."""
    data(DataConfig(task="arithmetic", split="test", limit=192, out=folder / "p.parquet"))
    result = astarpo.evaluate(
        EvaluateConfig(
            model=f"shipped:{policy}", problems=folder / "p.parquet", out=folder / "e.json",
            samples=4, max_new_tokens=64, device="cpu",
        )
    )  # fmt: skip
    assert result.details["truncated_share"] < 0.02
    answers = pq.read_table(folder / "e.parquet").to_pandas()
    sampled = answers[answers["mode"] == "sampled"].groupby("problem_id")["reward"].mean()
    return result["pass_at_1"].value, sampled


def test_sums_slips_but_knows_better(tmp_path):
    greedy, sampled = solve_rates("sums", tmp_path)
    assert greedy > 0.95
    assert 0.35 < sampled.mean() < 0.6


def test_beliefs_is_as_wrong_in_greedy_answers(tmp_path):
    greedy, sampled = solve_rates("beliefs", tmp_path)
    assert 0.3 < greedy < 0.6
    assert abs(greedy - sampled.mean()) < 0.2


def test_mixed_finds_a_third_easy_and_a_third_hopeless(tmp_path):
    greedy, sampled = solve_rates("mixed", tmp_path)
    assert 0.4 < greedy < 0.75
    assert 0.2 < (sampled == 0).mean() < 0.5
    assert 0.2 < (sampled >= 0.75).mean() < 0.5


def test_shipped_policies_are_small_and_by_name():
    folder = Path(find_shipped("shipped:sums")).parent
    assert {path.name for path in folder.iterdir()} == set(POLICIES)
    assert all((folder / name / "model.safetensors").stat().st_size < 2e6 for name in POLICIES)
    message = "no such policy is shipped; there are shipped:beliefs, shipped:mixed, shipped:sums"
    with pytest.raises(UserError, match=message):
        find_shipped("shipped:terms")


def test_demo_runs_the_shipped_recipe(tmp_path, monkeypatch):
    asked = []
    module = importlib.import_module(
        "astarpo.verbs.demo"
    )  # the name `astarpo.verbs.demo` is the verb
    monkeypatch.setattr(module, "run", lambda config: asked.append(config) or {})
    astarpo.demo(DemoConfig(out=tmp_path, seed=3))
    (config,) = asked
    assert (config.recipe, config.seed, config.out) == ("demo", 3, tmp_path)
    assert config.model is None  # the recipe's own
