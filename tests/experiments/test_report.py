"""Pictures and page of comparisons and sweeps, from results made by hand."""

import copy
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astarpo
from astarpo.config import ReportConfig
from astarpo.experiments.records import Curves
from astarpo.experiments.report import write_experiment
from astarpo.experiments.report.sweeps import positions
from astarpo.reports.curves import band_of
from astarpo.types import UserError

SECONDS_PER_STEP = {"astar_po": 2.0, "grpo": 9.0, "ppo": 4.0}
STAGE_1 = {"astar_po": 40.0}


def row(variant: str, seed: int, algorithm: str = "", value: Any = None, **changes) -> dict:
    """A run of 40 steps, evaluated each ten, whose reward rises from 0.2."""
    algorithm = algorithm or variant
    first_s, step_s = STAGE_1.get(algorithm, 0.0), SECONDS_PER_STEP[algorithm]
    steps = [0, 10, 20, 30, 40]
    rewards = [0.2 + (0.012 + 0.001 * seed) * step for step in steps]
    training = list(range(1, 41))
    made = {
        "variant": variant, "algorithm": algorithm, "value": value, "seed": seed,
        "settings": {"algorithm": algorithm, "lr": 1e-4, "beta1": "inf", "seed": seed},
        "state": "done", "reason": None, "steps": 40, "samples_per_prompt": 1,
        "seconds": {
            "estimate": first_s, "generate": step_s * 20, "verify": step_s,
            "reference": step_s * 4, "update": step_s * 15,
        },
        "tokens": {"estimate": 1000 * first_s, "train": 40_000},
        "peak_memory_gib": 2.0 + seed, "kl": 0.5 + 0.1 * seed,
        "scores": {
            split: {
                "pass_at_1": {"value": 0.7 + 0.01 * seed, "low": 0.65, "high": 0.75},
                "avg_at_4": {"value": 0.6 + 0.02 * seed, "low": 0.55, "high": 0.65},
            }
            for split in ("test", "larger")
        },
        "curve": {
            "step": steps, "seconds": [first_s + step_s * s for s in steps],
            "tokens": [1000 * (first_s + s) for s in steps], "reward": rewards,
        },
        "training": {
            "step": training, "seconds": [first_s + step_s * s for s in training],
            "reward": [0.2 + 0.01 * s + 0.05 * (-1) ** s for s in training],
            "kl": [0.02 * s for s in training], "loss": [0.3 - 0.004 * s for s in training],
        },
        "to_target": {
            "steps": 30 - seed, "seconds": first_s + 30 * step_s + 10 * seed, "tokens": 70_000,
        },
    }  # fmt: skip
    return made | changes


def collapsed(made: dict, reason: str = "KL above 50") -> dict:
    """The same run ended at its 20th step."""
    made = copy.deepcopy(made)
    for name, count in (("curve", 3), ("training", 20)):
        made[name] = {key: column[:count] for key, column in made[name].items()}
    made["curve"]["reward"][-1] = 0.05
    return made | {
        "state": "collapsed", "reason": reason, "steps": 20, "scores": {}, "kl": None,
        "to_target": None,
    }  # fmt: skip


def document(kind: str, rows: list[dict], **changes) -> dict:
    reference = {
        "pass_at_1": {"value": 0.21, "low": 0.15, "high": 0.27},
        "avg_at_4": {"value": 0.2, "low": 0.16, "high": 0.24},
    }
    rows = [{"reference": {"test": reference, "larger": reference}} | made for made in rows]
    made = {
        "kind": kind, "setting": None, "equal": "prompts", "target": 0.5, "seeds": [0, 1, 2],
        "reference": {"test": reference, "larger": reference}, "rows": rows, "value_error": None,
        "package_version": "0.1",
    }  # fmt: skip
    return made | changes


def comparison() -> dict:
    rows = [row(name, seed) for seed in range(3) for name in SECONDS_PER_STEP]
    rows[-1] = collapsed(rows[-1])
    return document("compare", rows)


def beta1_sweep() -> dict:
    rows = [
        row(f"astar_po-beta1={value}", seed, "astar_po", value)
        for seed in range(2)
        for value in ("inf", 2.0, 0.5, 0.125)
    ]
    rows[-1] = collapsed(rows[-1])
    error = {
        "beta1": 0.5, "n": [1, 2, 4, 8], "bias": [-0.2, -0.1, -0.05, -0.02],
        "sd": [0.4, 0.3, 0.2, 0.15], "num_problems": 100, "num_samples": 32,
    }  # fmt: skip
    return document(
        "sweep", rows, setting="beta1", equal=None, target=None, seeds=[0, 1], value_error=error
    )


def write(out: Path, results: dict) -> str:
    """The page of some results, which are written to their folder first."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results), encoding="utf-8")
    line = write_experiment(out)
    assert line.startswith(f"{out}: report.html")
    return (out / "report.html").read_text(encoding="utf-8")


def cells(page: str, line: str, column: str) -> list[str]:
    """What stands in a line and column of the page's tables, of each that has both."""
    found = []
    for table in re.findall(r"<table>.*?</table>", page):
        heads, *lines = (
            [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", each)]
            for each in re.findall(r"<tr>.*?</tr>", table)
        )
        if column in heads:
            found += [each[heads.index(column)] for each in lines if each[0] == line]
    return found


def mean_and_sd(cell: str) -> list[float]:
    return [float(number) for number in cell.split(" ± ")]


def is_picture(path: Path, min_width: int = 900) -> bool:
    data = path.read_bytes()
    width, _ = struct.unpack(">II", data[16:24])
    return data.startswith(b"\x89PNG") and width >= min_width


def test_a_comparison_has_its_numbers_and_pictures(tmp_path):
    page = write(tmp_path, comparison())
    to_target_s, whole_s = cells(page, "astar_po", "seconds")
    assert mean_and_sd(to_target_s) == [110, 10]  # of 100, 110 and 120
    assert mean_and_sd(whole_s)[0] == 120
    assert cells(page, "astar_po", "stage 1")[0].startswith("40")
    assert mean_and_sd(cells(page, "astar_po", "GiB")[0]) == [3, 1]
    assert mean_and_sd(cells(page, "astar_po", "KL")[0]) == [0.6, 0.1]
    assert mean_and_sd(cells(page, "astar_po", "larger avg@4")[0]) == [0.62, 0.02]
    assert cells(page, "reference", "test greedy") == ["0.210"]
    assert cells(page, "ppo", "runs")[0] == "2 of 3"
    assert cells(page, "ppo", "collapsed") == ["1"]
    # Greedy of the two that are left; avg of these and the last held-out reward, 0.05.
    assert mean_and_sd(cells(page, "ppo", "test greedy")[0])[0] == 0.705
    mean = mean_and_sd(cells(page, "ppo", "test avg@4")[0])[0]
    assert mean == pytest.approx((0.6 + 0.62 + 0.05) / 3, abs=5e-4)
    assert "ppo, seed 2: collapsed at step 20: KL above 50" in page
    assert cells(page, "ppo, seed 2", "state") == ["collapsed"]
    assert cells(page, "ppo, seed 2", "avg@4") == ["0.05"]
    for name in ("reward.png", "cost.png", "training.png"):
        assert is_picture(tmp_path / name)
    assert not (tmp_path / "sweep.png").exists()
    assert page.count("<img ") == 3


def test_a_sweep_is_drawn_against_its_setting(tmp_path):
    page = write(tmp_path, beta1_sweep())
    assert "<h1>Sweep over beta1" in page
    assert page.count("<img ") == 5
    for name in ("sweep.png", "value-error.png", "reward.png", "cost.png", "training.png"):
        assert is_picture(tmp_path / name)
    many = [row(f"astar_po-beta1={i}", 0, "astar_po", i) for i in range(1, 10)]
    page = write(tmp_path, document("sweep", many, setting="beta1", equal=None))
    assert "More than 7 variants" in page
    assert not (tmp_path / "reward.png").exists()
    assert not (tmp_path / "value-error.png").exists()


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(tmp_path):
    page = write(tmp_path, comparison())
    assert "default-src 'none'; img-src data:" in page
    assert "<script" not in page
    assert not re.search(r"https?://|unsafe|javascript:", page)
    assert set(re.findall(r'src="([^,]{1,40},)', page)) == {"data:image/svg+xml;base64,"}
    assert page.count("src=") == page.count('src="data:image/svg+xml;base64,')


def test_an_experiment_under_way_is_shown_as_far_as_it_is(tmp_path):
    page = write(tmp_path, document("compare", []))
    assert "No run is finished yet." in page
    assert "Nothing to draw yet." in page
    page = write(tmp_path, document("compare", [row("astar_po", 0)], target=None))
    assert "Under way: 1 of at least 3 runs" in page
    bare = {"variant": "grpo", "seed": 1}
    none = dict.fromkeys(row("grpo", 0)) | {"variant": "ppo", "state": "collapsed"}
    page = write(tmp_path, document("compare", [bare, none]))
    assert cells(page, "grpo, seed 1", "steps") == ["0"]
    early = collapsed(row("ppo", 0), "")
    early["curve"] = {"step": [], "seconds": [], "tokens": [], "reward": []}
    early["training"]["loss"] = [None] * 20
    page = write(tmp_path, document("sweep", [early, bare, none], setting="lr", equal=None))
    assert "ppo, seed 0: collapsed at step 20: no reason given" in page


def test_hostile_text_stays_text(tmp_path):
    hostile = "</style><script>alert(1)</script><img src=x onerror=alert(1)>\x00\u2028\ud800 $x^$"
    made = collapsed(row("grpo", 0), reason=hostile)
    made |= {"variant": hostile, "algorithm": hostile, "value": hostile}
    made["settings"] = {hostile: hostile, "lr": 1.0}
    made["scores"] = {hostile: {"avg_at_1": {"value": 0.5}, "pass_at_1": {"value": 0.5}}}
    other = row("../../../etc", 1, "grpo", 3)
    page = write(
        tmp_path, document("sweep", [made, other], setting=hostile, package_version=hostile)
    )
    assert "<script" not in page
    assert page.count("<img ") == page.count('src="data:')
    assert "&lt;script&gt;alert(1)" in page
    assert "\x00" not in page
    assert page.count("</style>") == 1
    assert "href=" not in re.sub('href="#', "", page)


def test_variants_of_one_seed_are_named(tmp_path):
    assert "One seed only" not in write(tmp_path / "all", comparison())
    some = comparison()
    some["rows"] = [r for r in some["rows"] if r["variant"] != "grpo" or r["seed"] == 0]
    assert "One seed only of grpo: " in write(tmp_path / "some", some)


def test_runs_lead_to_their_own_reports(tmp_path):
    folder = tmp_path / "runs" / "astar_po-beta1=2.0" / "seed-0"
    folder.mkdir(parents=True)
    assert '<a href="runs/astar_po-beta1%3D2.0/seed-0">' in write(tmp_path, beta1_sweep())
    (folder / "report.html").write_text("")
    page = write(tmp_path, beta1_sweep())
    assert '<a href="runs/astar_po-beta1%3D2.0/seed-0/report.html">' in page


def test_the_band_covers_what_all_seeds_have():
    first = (np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 0.0]))
    second = (np.array([5.0, 15.0, 40.0]), np.array([0.1, 0.3, 0.9]))
    grid, mean, low, high = band_of([first, second])
    assert grid.tolist() == [5, 10, 15, 20]
    # The first is 0.5, 1, 0.5, 0 there; the second 0.1, 0.2, 0.3 and then 0.3 + 0.6 * 5 / 25.
    assert mean == pytest.approx([0.3, 0.6, 0.4, 0.21])
    assert low == pytest.approx([0.1, 0.2, 0.3, 0.0])
    assert high == pytest.approx([0.5, 1.0, 0.5, 0.42])
    apart = (np.array([50.0, 60.0]), np.array([1.0, 1.0]))
    assert all(len(column) == 0 for column in band_of([first, apart]))
    assert all(len(column) == 0 for column in band_of([]))


def test_points_without_a_number_are_left_out():
    curves = Curves.model_validate({"step": [0, 1, 2, 3], "reward": [0.1, None, 0.3]})
    steps, rewards = curves.against("step", "reward")
    assert steps.tolist() == [0, 2]
    assert rewards.tolist() == [0.1, 0.3]


def test_values_of_a_setting_have_their_places():
    assert positions(["inf", 2, 0.5, 0.5, 1]) == {"0.5": -1, "1": 0, "2": 1, "inf": 2}
    assert list(positions([4, 0, 1])) == ["0", "1", "4"]
    assert positions(["inf"]) == {"inf": 1}
    assert positions(["none", "all_wrong"]) == {"none": 0, "all_wrong": 1}
    assert positions([1.0, "None"]) == {"1": 0, "None": 1}
    assert positions([None, True]) == {"None": 0, "True": 1}


def test_report_takes_an_experiment_alone(tmp_path):
    write(tmp_path / "a", comparison())
    (tmp_path / "a" / "report.html").unlink()
    line = astarpo.report(ReportConfig(runs=[tmp_path / "a"]))
    assert "9 runs" in line
    assert (tmp_path / "a" / "report.html").is_file()
    for settings in ({"out": tmp_path / "x.html"}, {"markdown": True}):
        with pytest.raises(UserError, match="alone and into its own folder"):
            astarpo.report(ReportConfig.model_validate({"runs": [tmp_path / "a"]} | settings))
    with pytest.raises(UserError, match="alone"):
        astarpo.report(ReportConfig(runs=[tmp_path, tmp_path / "a"]))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not an experiment's results"),
        ('{"kind": "suite"}', "not an experiment's results .kind"),
        ('{"kind": "sweep", "rows": [{"variant": "x", "steps": "many"}]}', r"rows\.0\.steps"),
    ],
)
def test_other_results_are_refused(tmp_path, text, complaint):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=complaint):
        write_experiment(tmp_path)
