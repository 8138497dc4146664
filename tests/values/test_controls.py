import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from astarpo.config import CompareConfig
from astarpo.experiments.request import plan_experiment
from astarpo.values.choice import estimator_of
from astarpo.values.controls import Constant, Zero
from astarpo.values.estimators import Plugin, problem_values
from tests.conftest import run_here

NAN = math.nan
RAGGED = np.array([[1.0, 1.0, 0.0], [0.0, NAN, NAN], [1.0, 1.0, NAN]])


def test_zero_is_zero_whatever_the_rewards():
    for beta1 in (0.0, 0.5, math.inf):
        found = problem_values(RAGGED, Zero(beta1))
        assert found.v_star_P.tolist() == [0.0, 0.0, 0.0]
        assert np.isnan(found.standard_error_P).all()
    # What the samples themselves say, by which filters and reports go, stays.
    assert found.mean_P == pytest.approx([2 / 3, 0, 1])
    assert found.all_wrong_P.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("beta1", "value"),
    # Four of the six samples are right; each counts the same, whatever its problem's number.
    [(math.inf, 4 / 6), (0.0, 1.0), (0.5, 0.5 * math.log(1 + 4 / 6 * (math.exp(2) - 1)))],
)
def test_constant_is_v_star_of_all_samples_together(beta1, value):
    found = problem_values(RAGGED, Constant(beta1))
    assert found.v_star_P == pytest.approx([value] * 3)
    pooled = Plugin(beta1).estimate(RAGGED[~np.isnan(RAGGED)][None])
    assert found.v_star_P[0] == pytest.approx(pooled.v_star_P[0])
    assert np.isnan(found.standard_error_P).all()


def test_no_problem_has_no_value():
    for name in ("zero", "constant"):
        estimator = estimator_of({"estimator": name, "beta1": 0.5})
        assert estimator.estimate(np.empty((0, 2))).v_star_P.tolist() == []


def test_a_comparison_takes_them_as_variants(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'model = "m"\n[data]\ntask = "multiply"\n[train]\nbeta1 = 1.0\nsteps = 2\n'
        + "".join(
            f'[variants.{name}]\nalgorithm = "astar_po"\nestimator = "{name}"\n'
            for name in ("zero", "constant")
        )
    )
    config = CompareConfig(recipe=str(recipe), algorithms="zero,constant")
    experiment = plan_experiment(config, kind="compare", out=tmp_path / "out")
    found = {v.name: experiment.train_config(v, 0) for v in experiment.variants}
    assert {name: estimator_of(dict(config)) for name, config in found.items()} == {
        "zero": Zero(1.0),
        "constant": Constant(1.0),
    }
    assert {config.values for config in found.values()} == {tmp_path / "out/values/seed-0"}


@pytest.mark.parametrize("name", ["zero", "constant"])
def test_a_policy_is_trained_on_them(name, train_words, table_path, tmp_path):
    run: Path = tmp_path / "run"
    done = run_here(*train_words, "--estimator", name, "--out", run, "--steps", 1)
    assert done.returncode == 0, done.stderr
    (value,) = set(pq.read_table(run / "samples" / "step-000001.parquet")["v_star"].to_pylist())
    rewards = [
        reward
        for shard in table_path.glob("samples-*.parquet")
        for reward in pq.read_table(shard)["reward"].to_pylist()
    ]
    pooled = 0.5 * math.log(np.mean(np.exp(np.array(rewards) / 0.5)))
    assert value == pytest.approx(0.0 if name == "zero" else pooled)
