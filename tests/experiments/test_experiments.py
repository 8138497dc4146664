import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from astarpo.algorithms.grpo import GRPO
from astarpo.algorithms.spo import SPO
from astarpo.config import CompareConfig, SweepConfig
from astarpo.config.base import find_shipped
from astarpo.experiments.plan import Cost, algorithm_of
from astarpo.experiments.preview import preview
from astarpo.experiments.records import Curves, Experiment, Run, read_results, write_results
from astarpo.experiments.request import claim, parse_algorithms, parse_seeds, swept_variants
from astarpo.experiments.results import common_target, cost_of
from astarpo.experiments.runner import run_experiment
from astarpo.experiments.table import render_tables, sign_flip_p
from astarpo.types import UserError
from astarpo.values.deviations import value_deviations
from astarpo.values.estimators import optimal_values
from astarpo.verbs.compare import plan_comparison
from astarpo.verbs.sweep import plan_sweep


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        """
        max_new_tokens = 32
        [data]
        task = "arithmetic"
        size = 3
        limit = 8
        [test]
        limit = 4
        [ood.longer]
        size = 6
        [ood.product]
        task = "multiply"
        [estimate]
        temperature = 0.7
        samples = 4
        [train]
        prompts_per_step = 16
        filter = "all_wrong"
        steps = 5
        lr = 1e-4
        [grpo]
        lr = 2e-4
        group_size = 4
        [evaluate]
        samples = 2
        """
    )
    return path


def test_settings_of_the_recipe_are_changed(recipe):
    changes = ("data.size=4", "grpo.lr=3e-4", "ood.longer.size=5")
    asked = CompareConfig(recipe=str(recipe), algorithms="grpo,rloo", set=changes)
    experiment = plan_comparison(asked)
    grpo, rloo = experiment.variants
    assert experiment.train_config(grpo, 0).lr == 3e-4
    assert experiment.train_config(rloo, 0).lr == 1e-4
    sizes = [(config.out.stem, config.size) for config in experiment.data_configs(grpo)]
    assert sizes == [("train", 4), ("test", 4), ("longer", 5), ("product", None)]


def comparison(recipe, **settings):
    out = recipe.parent / "out"
    return plan_comparison(CompareConfig(recipe=str(recipe), out=out, **settings))


def test_algorithms_differ_by_their_tables_and_share_everything_else(recipe):
    experiment = comparison(recipe, algorithms="astar_po,grpo", seeds="3,4")
    configs = {
        (variant.name, seed): experiment.train_config(variant, seed)
        for variant, seed in experiment.runs()
    }
    assert list(configs) == [("astar_po", 3), ("grpo", 3), ("astar_po", 4), ("grpo", 4)]
    ours, rival = configs["astar_po", 3], configs["grpo", 3]
    assert (ours.lr, rival.lr, rival.group_size) == (1e-4, 2e-4, 4)
    assert ours.values == recipe.parent / "out" / "values" / "seed-3"
    # A filter goes by stage 1, which rivals do not have.
    assert (ours.filter, rival.filter, rival.values) == ("all_wrong", "none", None)
    assert (ours.temperature, ours.max_new_tokens) == (0.7, 32)
    different = {"algorithm", "lr", "group_size", "values", "filter", "out"}
    assert ours.model_dump(exclude=different) == rival.model_dump(exclude=different)
    assert ours.model == find_shipped("shipped:sums")
    assert configs["astar_po", 4].seed == 4


def test_a_function_that_the_user_names_may_run_in_every_stage(recipe):
    recipe.write_text(recipe.read_text().replace("size = 3", 'reward = "mine.py:f"'))
    with pytest.raises(UserError, match=r"give --trust-reward mine\.py:f"):
        comparison(recipe)
    experiment = comparison(recipe, algorithms="astar_po", trust_reward="mine.py:f")
    (variant,) = experiment.variants
    configs = [experiment.estimate_config(variant, 0), experiment.train_config(variant, 0)]
    configs += experiment.evaluate_configs(variant, 0).values()
    assert {config.trust_reward for config in configs} == {"mine.py:f"}
    assert experiment.data_configs(variant)[0].reward == "mine.py:f"


def test_rivals_of_a_setting_or_two_are_variants(recipe):
    recipe.write_text(
        recipe.read_text()
        + """
        [spo]
        clip_high = 0.3
        [variants.dr_grpo]
        algorithm = "grpo"
        kl_coef = 0.0
        std_normalize = false
        length_normalize = false
        """
    )
    experiment = comparison(recipe, algorithms="spo,dr_grpo")
    spo, dr_grpo = (experiment.train_config(v, 0) for v in experiment.variants)
    assert algorithm_of(spo) == SPO(clip=0.2, clip_high=0.3)
    assert algorithm_of(dr_grpo) == GRPO(4, 0.2, 0.0, std_normalize=False, length_scale=32)
    # Stage 1 is the former's alone, and counted as its own.
    assert (spo.values, dr_grpo.values) == (experiment.out / "values" / "seed-0", None)


def test_a_folder_that_version_0_1_0_began_is_gone_on_with(recipe):
    """Its recipe's `reward` let the function run, and a variant may have had what is gone now."""
    recipe.write_text('reward = "mine.py:f"\n' + recipe.read_text())
    experiment = comparison(recipe, algorithms="rloo", trust_reward="mine.py:f")
    claim(experiment)
    file = experiment.out / "experiment.json"
    asked = json.loads(file.read_text())
    del asked["recipe"]["trust_reward"]
    train = {"reward": "mine.py:f", "center": False}
    asked["variants"][0] |= {"name": "earlier", "train": train}
    file.write_text(json.dumps(asked))
    earlier, _ = claim(experiment).variants
    assert earlier.train == {"trust_reward": "mine.py:f"}
    train["center"] = True
    file.write_text(json.dumps(asked))
    with pytest.raises(UserError, match=r"experiment.json: center was measured"):
        claim(experiment)


def test_problem_sets(recipe):
    experiment = comparison(recipe, algorithms="rloo")
    configs = {c.out.stem: c for c in experiment.data_configs(experiment.variants[0])}
    assert {name: (c.task, c.split, c.size, c.limit, c.seed) for name, c in configs.items()} == {
        "train": ("arithmetic", "train", 3, 8, 0),
        "test": ("arithmetic", "test", 3, 4, 0),
        "longer": ("arithmetic", "test", 6, 4, 0),
        "product": ("multiply", "test", None, None, 0),
    }
    evaluations = experiment.evaluate_configs(experiment.variants[0], 1)
    assert [bool(c.reference) for c in evaluations.values()] == [True, False, False]


def test_equal_samples_counts_every_sample_of_a_prompt(recipe):
    experiment = comparison(recipe, algorithms="astar_po,grpo,rebel", equal="samples")
    prompts = [experiment.train_config(v, 0).prompts_per_step for v in experiment.variants]
    assert prompts == [16, 4, 8]
    recipe.write_text(recipe.read_text().replace("group_size = 4", "group_size = 5"))
    with pytest.raises(UserError, match="5 samples a prompt of grpo do not divide 16"):
        comparison(recipe, equal="samples")


def test_equal_total_takes_the_samples_of_stage_1_off(recipe):
    experiment = comparison(
        recipe, algorithms="astar_po,grpo,rebel", equal="total", total_samples=200
    )
    costs = [Cost(samples=72), Cost(), Cost()]
    pairs = zip(experiment.variants, costs, strict=True)
    configs = [experiment.train_config(variant, 0, cost) for variant, cost in pairs]
    assert [c.prompts_per_step for c in configs] == [16, 4, 8]
    assert [c.steps for c in configs] == [8, 12, 12]  # 128 / 16 and 200 / 16 samples a step
    with pytest.raises(UserError, match="stage 1 has 190 samples, which leaves nothing of --total"):
        experiment.train_config(experiment.variants[0], 0, Cost(samples=190))
    with pytest.raises(UserError, match="--equal total and --total-samples N go together"):
        comparison(recipe, equal="total")
    with pytest.raises(UserError, match="leave --steps out"):
        comparison(recipe, equal="total", total_samples=200, steps=3)


def test_equal_seconds_takes_stage_1_off(recipe):
    experiment = comparison(recipe, algorithms="astar_po", equal="seconds", seconds=100)
    config = experiment.train_config(experiment.variants[0], 0, cost=Cost(seconds=30))
    assert (config.max_seconds, config.schedule) == (70, "constant")
    assert config.steps is not None
    assert config.steps > 5  # Time ends it, not the recipe's steps.
    with pytest.raises(UserError, match="stage 1 took 130 s"):
        experiment.train_config(experiment.variants[0], 0, cost=Cost(seconds=130))


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("budget_samples = 3000", "3,000 samples, in rounds"),
        ("budget_tokens = 50000", "about 50,000 tokens, in rounds"),
        ("target_error = 0.1", "16 samples, then rounds until V* is known to 0.1"),
    ],
)
def test_a_recipe_may_share_samples_out_in_rounds(limit, said, recipe):
    text = recipe.read_text().replace("samples = 4\n", f'estimator = "shrunk"\n{limit}\n', 1)
    recipe.write_text(text)
    experiment = comparison(recipe, algorithms="astar_po")
    stage1 = experiment.estimate_config(experiment.variants[0], 0)
    assert (stage1.samples, stage1.in_rounds) == (2, True)
    assert f"stage 1, each seed: {said}" in preview(experiment)
    sweep = SweepConfig(recipe=str(recipe), setting="samples", over="1,2", steps=2)
    with pytest.raises(UserError, match=r"leave the budget or target_error out of \[estimate\]"):
        plan_sweep(sweep)


def test_a_sweep_over_samples_has_one_table_and_no_filter(recipe):
    config = SweepConfig(recipe=str(recipe), setting="samples", over="1,2,8", steps=2)
    experiment = plan_sweep(config)
    configs = [experiment.train_config(variant, 0) for variant in experiment.variants]
    assert [c.values_samples for c in configs] == [1, 2, 8]
    assert {c.filter for c in configs} == {"none"}
    assert {c.steps for c in configs} == {2}
    assert len({c.values for c in configs}) == 1
    assert experiment.estimate_config(experiment.variants[0], 0).samples == 8
    assert [v.name for v in experiment.variants][-1] == "astar_po-samples=8"


def test_a_sweep_over_size_changes_training_and_test_problems_alone(recipe):
    experiment = plan_sweep(SweepConfig(recipe=str(recipe), setting="size", over="2,5"))
    files = {c.out: c.size for v in experiment.variants for c in experiment.data_configs(v)}
    data = experiment.out / "data"
    assert files == {
        data / "size=2" / "train.parquet": 2,
        data / "size=2" / "test.parquet": 2,
        data / "size=5" / "train.parquet": 5,
        data / "size=5" / "test.parquet": 5,
        data / "longer.parquet": 6,
        data / "product.parquet": None,
    }
    assert experiment.train_config(experiment.variants[1], 0).values == (
        experiment.out / "values" / "size=5" / "seed-0"
    )


def test_values_of_a_sweep():
    variants = swept_variants("beta1", None, parse_algorithms("astar_po", {}, ""))
    assert [v.value for v in variants] == ["inf", 2, 1, 0.5, 0.25, 0.125]
    names = [
        v.name
        for v in swept_variants(
            "filter", "none,all_wrong", parse_algorithms("astar_po,grpo", {}, "")
        )
    ]
    assert names == [
        "astar_po-filter=none",
        "grpo-filter=none",
        "astar_po-filter=all_wrong",
        "grpo-filter=all_wrong",
    ]
    json.dumps([v.train for v in variants], allow_nan=False)


@pytest.mark.parametrize(
    ("setting", "over", "message"),
    [
        ("values", "a", "cannot sweep 'values'"),
        ("speed", "1", "cannot sweep 'speed'"),
        ("lr", None, "give the values of lr"),
        ("lr", "1e-3,0.001", "0.001 given more than once"),
        ("lr", "fast", "lr: "),
        ("samples", "0", "values_samples: "),
        ("size", "big", "size: "),
        ("filter", "some", "filter: "),
        ("beta1", ",", "give one at least"),
    ],
)
def test_what_cannot_be_swept(setting, over, message):
    with pytest.raises(UserError, match=message):
        swept_variants(setting, over, parse_algorithms("astar_po", {}, ""))


def test_a_variant_of_a_recipe_goes_over_its_algorithm():
    tables = {"variants": {"mean": {"algorithm": "astar_po", "beta1": "inf", "lr": 1e-4}}}
    plain, mean = parse_algorithms("astar_po,mean", tables, "r.toml")
    assert (plain.name, plain.algorithm, plain.train) == ("astar_po", "astar_po", {})
    assert (mean.name, mean.algorithm) == ("mean", "astar_po")
    assert mean.train == {"beta1": "inf", "lr": 1e-4}
    swept = swept_variants("lr", "1e-3", [mean])[0]
    assert (swept.name, swept.line) == ("mean-lr=0.001", "mean")
    assert swept.train == {"beta1": "inf", "lr": 1e-3}


@pytest.mark.parametrize("table", [{}, {"algorithm": "sarsa"}])
def test_a_variant_names_an_algorithm(table):
    with pytest.raises(UserError, match="its table has an algorithm out of astar_po"):
        parse_algorithms("mine", {"variants": {"mine": table}}, "r.toml")


@pytest.mark.parametrize("text", ["", "a", "1,1", "-1", "1.5"])
def test_wrong_seeds(text):
    with pytest.raises(UserError, match="seeds"):
        parse_seeds(text)


def test_a_folder_takes_more_of_the_same_experiment_and_no_other(recipe):
    claim(comparison(recipe, algorithms="astar_po", seeds="0"))
    whole = claim(comparison(recipe, algorithms="grpo", seeds="1,0"))
    assert [variant.name for variant in whole.variants] == ["astar_po", "grpo"]
    assert whole.seeds == (0, 1)
    with pytest.raises(UserError, match="equal was 'prompts' and is 'samples'"):
        claim(comparison(recipe, algorithms="grpo", equal="samples"))
    with pytest.raises(UserError, match="steps was None and is 7"):
        claim(comparison(recipe, algorithms="grpo", steps=7))
    recipe.write_text(recipe.read_text().replace("lr = 1e-4", "lr = 1e-5"))
    with pytest.raises(UserError, match=r"recipe.train.lr was 0.0001 and is 1e-05"):
        claim(comparison(recipe, algorithms="grpo"))


def test_a_folder_of_something_else_is_left_alone(recipe):
    (recipe.parent / "out").mkdir()
    (recipe.parent / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not an experiment"):
        claim(comparison(recipe))


HAND_ON = """
import subprocess, sys, time
from pathlib import Path
from astarpo.runtime.locks import folder_lock
END = "import sys, time; time.sleep(0.5); open(sys.argv[1], 'w').close()"
with folder_lock(Path(sys.argv[1])) as lock:
    subprocess.Popen([sys.executable, "-c", END, sys.argv[2]], pass_fds=[lock])
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_training_that_outlives_its_experiment_is_waited_for(
    recipe, tmp_path, monkeypatch, caplog
):
    experiment = comparison(recipe)
    ended = tmp_path / "ended"
    words = [sys.executable, "-c", HAND_ON, experiment.out, ended]
    killed = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert killed.stdout is not None
    killed.stdout.readline()
    killed.kill()
    killed.wait()

    def claim_after_the_child(_) -> None:
        assert ended.exists()
        raise UserError("waited")

    monkeypatch.setattr("astarpo.experiments.runner.claim", claim_after_the_child)
    assert not ended.exists()
    with pytest.raises(UserError, match="waited"):
        run_experiment(experiment)
    assert "waiting for it to end" in caplog.text


CURVE = Curves(
    step=[0, 10, 20, 30],
    seconds=[5.0, 15.0, 25.0, 45.0],
    tokens=[100.0, 200.0, 300.0, 400.0],
    reward=[0.4, 0.6, 0.5, 0.9],
)


def cost(target, curve=CURVE):
    found = cost_of(curve, target)
    return found and found.model_dump()


def test_cost_of_a_target_lies_on_the_line_between_evaluations():
    assert cost(0.5) == pytest.approx({"steps": 5, "seconds": 10, "tokens": 150})
    assert cost(0.6) == pytest.approx({"steps": 10, "seconds": 15, "tokens": 200})
    assert cost(0.8) == pytest.approx({"steps": 27.5, "seconds": 40, "tokens": 375})
    assert cost(0.3) == {"steps": 0, "seconds": 5, "tokens": 100}
    assert cost(0.95) is None
    assert cost(0.1, Curves()) is None


def row(rewards, state="done"):
    return Run(variant="v", state=state, curve=Curves(reward=rewards))


def test_the_common_target():
    assert common_target([row([0.4, 0.87, 0.8]), row([0.41, 0.93])]) == 0.85
    assert common_target([row([0.4, 0.85]), row([0.4, 0.1], "collapsed")]) == 0.85
    assert common_target([row([0.4, 0.44]), row([0.41, 0.93])]) is None
    assert common_target([row([0.4, 0.1], "collapsed")]) is None
    assert common_target([row([])]) is None
    assert common_target([]) is None


def result_row(variant, seed, score, *, state="done"):
    scores = {"test": {"pass_at_1": {"value": score}, "avg_at_4": {"value": score - 0.1}}}
    done = state == "done"
    return {
        "variant": variant,
        "value": None,
        "seed": seed,
        "state": state,
        "steps": 30,
        "seconds": {"estimate": 5.0, "generate": 10, "verify": 1, "reference": 4, "update": 20},
        "tokens": {"estimate": 100_000, "train": 1_100_000 + seed * 200_000},
        "peak_memory_gib": 1.0,
        "kl": 0.5 if done else None,
        "scores": scores if done else {},
        "curve": CURVE,
        "to_target": cost_of(CURVE, 0.8) if done else None,
    }


def test_tables_say_the_cost_first_then_the_scores():
    results = {
        "kind": "compare",
        "setting": None,
        "equal": "prompts",
        "target": 0.8,
        "seeds": [0, 1],
        "reference": {"test": {"pass_at_1": {"value": 0.9}, "avg_at_4": {"value": 0.4}}},
        "rows": [
            result_row("astar_po", 0, 0.9),
            result_row("astar_po", 1, 0.7),
            result_row("grpo", 0, 0.8),
            result_row("grpo", 1, 0.8, state="collapsed"),
        ],
    }
    text = render_tables(Experiment.model_validate(results))
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    assert text.index("held-out reward of 0.8") < text.index("Cost of whole runs")
    assert ["astar_po", "2 of 2", "27.5 ± 0", "40", "375"] in cells
    assert ["grpo", "1 of 2", "27.5", "40", "375"] in cells
    assert ["astar_po", "2", "0", "30", "40", "1.30M ± 141k", "1.00"] in cells
    assert ["grpo", "2", "1", "30", "40", "1.30M ± 141k", "1.00"] in cells
    assert ["astar_po", "5", "10", "1", "4", "20"] in cells
    assert ["reference", "0", "0.900", "0.400"] in cells
    assert ["astar_po", "0.500 ± 0.000", "0.800 ± 0.141", "0.700 ± 0.141"] in cells
    # 0.9: the last held-out reward of the collapsed run, beside 0.7 at the end of the other.
    assert ["grpo", "0.500", "0.800", "0.800 ± 0.141"] in cells
    lengths = [len(line) for line in text.splitlines() if line.startswith("| ")]
    assert len(set(lengths)) <= 5  # one width a table
    # Differences of -.1 and +.3: every choice of signs has a sum as far from 0.
    assert ["grpo", "+0.100 ± 0.283", "1 of 2 seeds", "1.000"] in cells


def test_sign_flip_test():
    assert sign_flip_p([0.1, 0.2, 0.3]) == 2 / 8  # all of one sign: +++ and ---
    assert sign_flip_p([0.3, -0.1]) == 1
    assert sign_flip_p([1, 1, 1, -2]) == 1  # they cancel out
    assert sign_flip_p([3, 1, -1]) == 6 / 8  # |sum| >= 3: 3+1-1, 3-1+1, 3+1+1 and their mirrors


def test_results_come_back_as_they_were_written(tmp_path):
    made = Experiment.model_validate(
        {
            "kind": "sweep",
            "setting": "beta1",
            "rows": [result_row("a", 0, 0.9) | {"value": "inf"}, {"variant": "b", "seed": 1}],
            "value_error": {"beta1": "inf", "n": [1, 2], "bias": [0.1, None], "sd": [0.2, 0.1]},
        }
    )
    document = write_results(tmp_path, made)
    assert json.loads((tmp_path / "results.json").read_text()) == document
    assert document["value_error"]["bias"] == [0.1, None]
    row = document["rows"][0]
    # Counts stay counts: 30 steps, not 30.0.
    assert [type(row[n]) for n in ("steps", "seed")] == [int, int]
    assert [type(n) for n in row["curve"]["step"]] == [int] * 4
    assert row["tokens"] == {"estimate": 100_000, "train": 1_100_000}
    assert row["reason"] is None
    again = read_results(tmp_path)
    assert again.model_dump_json() == made.model_dump_json()
    assert again.rows[0] == made.rows[0]


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0, math.inf])
@pytest.mark.parametrize("values", [(0.0, 1.0), (-1.0, 1.0)])
def test_value_deviations_of_two_valued_rewards_are_exact(beta, values):
    rng = np.random.default_rng(0)
    rewards_PN = rng.choice(values, size=(7, 6), p=[0.7, 0.3])
    rewards_PN[0] = values[0]
    counts = (1, 2, 3, 6)
    for n, deviation in zip(counts, value_deviations(rewards_PN, beta, counts), strict=True):
        subsets = [list(c) for c in itertools.combinations(range(6), n)]
        estimates = np.stack([optimal_values(rewards_PN[:, c], beta) for c in subsets])
        errors = estimates - optimal_values(rewards_PN, beta)
        assert deviation.bias == pytest.approx(errors.mean(), abs=1e-12)
        assert deviation.sd == pytest.approx(math.sqrt(estimates.var(axis=0).mean()), abs=1e-12)


def test_value_deviations_of_any_rewards():
    rewards_PN = np.random.default_rng(1).normal(size=(4000, 8))
    (one, four, all_) = value_deviations(rewards_PN, math.inf, (1, 4, 8))
    # A mean without replacement: no bias, and the variance of n out of N.
    assert one.bias == pytest.approx(0, abs=1e-9)
    assert one.sd == pytest.approx(math.sqrt(7 / 8), rel=0.02)
    assert four.sd == pytest.approx(math.sqrt((1 / 4) * (1 - 4 / 8)), rel=0.05)
    assert (all_.bias, all_.sd) == pytest.approx((0, 0), abs=1e-9)
    with pytest.raises(ValueError, match="from 1 to 8, got 9"):
        value_deviations(rewards_PN, 1.0, [9])


def test_one_value_has_no_deviation():
    deviations = value_deviations(np.ones((3, 4)), 0.5, [1, 2])
    assert [tuple(d) for d in deviations] == [(0, 0), (0, 0)]
