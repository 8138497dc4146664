import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "against_trl.py"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench():
    return load(PATH)


def result(*, stage1=None, steps=None, start=0.36, seconds=2.0):
    """A run of 6 steps of `seconds`, with a reward of `start`, then 0.8 after them."""
    phases = dict.fromkeys(("generate", "verify", "reference", "update", "other"), seconds / 5)
    spans = steps or [{"sequences": 128, "tokens": 3968}] * 6
    return {
        "stage1": stage1,
        "steps": [span | {"seconds": seconds, "phases": phases} for span in spans],
        "curve": {
            "step": [0, 6],
            "seconds": [0.0, 6 * seconds],
            "tokens": [0, 1],
            "reward": [start, 0.8],
        },
        "memory": {"peak_rss_gib": 1.0, "growth_gib": 0.5},
    }


def turn(**changed):
    """All contenders, alike but for those named `side_algorithm`."""
    stage1 = {"sequences": 1024, "tokens": 32_000, "seconds": 4.0}
    runs = {
        (side, algorithm): result(stage1=stage1 if algorithm == "astar_po" else None)
        for algorithm in ("astar_po", "grpo")
        for side in ("astarpo", "trl", "trl-lean")
    }
    runs["astarpo-rollout", "astar_po"] = result()
    for name, run in changed.items():
        side, algorithm = name.split("_", 1)
        assert (side, algorithm) in runs
        runs[side, algorithm] = run
    return runs


@pytest.mark.parametrize("theirs", [3000, 3149, 2858])
def test_the_same_work_within_5_percent(bench, theirs):
    bench.require_same_work("stage 1", bench.Work(100, 3000), bench.Work(100, theirs))


@pytest.mark.parametrize(("ours", "theirs"), [(3000, 3151), (3151, 3000)])
def test_other_lengths_are_refused_with_both_numbers(bench, ours, theirs):
    with pytest.raises(bench.DifferentWorkError, match=r"stage 1.* 3[01]\...? .*5\.0% apart"):
        bench.require_same_work("stage 1", bench.Work(100, ours), bench.Work(100, theirs))
    with pytest.raises(bench.DifferentWorkError, match=r"30\.00.*31\.51|31\.51.*30\.00"):
        bench.require_same_work("stage 1", bench.Work(100, ours), bench.Work(100, theirs))


def test_another_number_of_sequences_is_refused(bench):
    # Though the tokens of each are the same.
    with pytest.raises(bench.DifferentWorkError, match="100 sequences and TRL 99"):
        bench.require_same_work("stage 1", bench.Work(100, 3000), bench.Work(99, 2970))


def test_a_turn_of_the_same_work_passes(bench):
    bench.check_turn(turn())


def test_a_turn_is_refused_for_its_stage_1(bench):
    longer = {"sequences": 1024, "tokens": 40_000, "seconds": 4.0}
    with pytest.raises(bench.DifferentWorkError, match=r"A\*-PO, stage 1: .*31\.25.*39\.06"):
        bench.check_turn(turn(trl_astar_po=result(stage1=longer)))


def test_a_turn_is_refused_for_its_first_steps_only(bench):
    same, longer = {"sequences": 128, "tokens": 3968}, {"sequences": 128, "tokens": 8000}
    bench.check_turn(turn(trl_grpo=result(steps=[same] * 5 + [longer])))
    with pytest.raises(bench.DifferentWorkError, match="GRPO"):
        bench.check_turn(turn(trl_grpo=result(steps=[same] * 4 + [longer] * 2)))


def test_a_turn_is_refused_where_the_policies_differ_before_training(bench):
    bench.check_turn(turn(trl_grpo=result(start=0.37)))
    with pytest.raises(bench.DifferentWorkError, match=r"0\.360 and 0\.420"):
        bench.check_turn(turn(trl_grpo=result(start=0.42)))


def test_ratios_are_taken_within_a_turn(bench):
    # The second turn is on a machine half as fast: no matter to the ratios.
    turns = [
        turn(astarpo_grpo=result(seconds=1.0), trl_grpo=result(seconds=1.5)),
        turn(astarpo_grpo=result(seconds=2.0), trl_grpo=result(seconds=3.0)),
    ]
    lines = {line["row"]: line for line in bench.summarize(turns, 0.58)}
    step = lines["GRPO(8) step, s"]
    assert step["astarpo"] == {"median": 1.5, "min": 1.0, "max": 2.0, "runs": 2}
    assert step["trl_over_astarpo"] == {"median": 1.5, "min": 1.5, "max": 1.5, "runs": 2}
    # Halfway from 0.36 to 0.8 in reward is halfway in seconds.
    assert lines["GRPO(8) to a reward of 0.58, s"]["astarpo"]["median"] == pytest.approx(4.5)
    assert lines["A*-PO stage 1, samples/s"]["trl"]["median"] == 256
    assert not any("CUDA" in row for row in lines)


def test_memory_is_also_compared_to_trl_in_micro_batches(bench):
    runs = turn()
    runs["trl-lean", "grpo"] = result() | {"memory": {"peak_rss_gib": 0.7, "growth_gib": 0.25}}
    lines = {line["row"]: line["trl_over_astarpo"] for line in bench.summarize([runs], 0.7)}
    assert lines["GRPO(8) peak over imports and model, GiB"]["median"] == 1
    assert lines["GRPO(8) peak over the same, TRL in 4 passes, GiB"]["median"] == 0.5


def test_a_target_that_some_run_misses(bench, capsys):
    never = result()
    never["curve"]["reward"] = [0.36, 0.5]
    turns = [turn(trl_grpo=never), turn()]
    lines = bench.summarize(turns, 0.7)
    line = next(each for each in lines if each["row"].startswith("GRPO(8) to"))
    assert (line["astarpo"]["runs"], line["trl"]["runs"]) == (2, 1)
    assert line["trl_over_astarpo"]["runs"] == 1
    bench.print_table(lines, len(turns))
    assert " in 1 of 2" in capsys.readouterr().out


def test_a_target_reached_before_training_has_no_ratio(bench):
    lines = {line["row"]: line for line in bench.summarize([turn()], 0.3)}
    line = lines["GRPO(8) to a reward of 0.3, s"]
    assert line["astarpo"]["median"] == line["trl"]["median"] == 0
    assert line["trl_over_astarpo"] is None


@pytest.mark.parametrize("arguments", [["--batch", "100"], ["--prompts", "64"]])
def test_batches_are_whole_groups_of_different_prompts(bench, arguments):
    with pytest.raises(SystemExit):
        bench.parse_options(arguments)


@pytest.mark.parametrize(("algorithm", "group"), [("astar_po", 1), ("grpo", 8)])
def test_each_contender_has_settings_that_its_algorithm_reads(algorithm, group, tmp_path):
    pytest.importorskip("psutil")
    contender = load(PATH.with_name("trl_contender.py"))
    spec = {
        "algorithm": algorithm, "work": tmp_path, "model": "m", "train": "a", "test": "b",
        "device": "cpu", "seed": 0, "steps": 6, "sequences": 128, "group": group,
        "eval_every": 3, "passes": 1, "settings": {},
    }  # fmt: skip
    config = contender.train_config(spec)
    assert config.prompts_per_step * group == 128
    if algorithm == "astar_po":
        assert contender.estimate_config(spec, config).out == config.values
