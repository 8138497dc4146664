"""An algorithm of the user's: given in Python, or added by an installed package."""

import json
import os
import sys
from dataclasses import dataclass

import pytest
import torch

import astarpo
from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput
from astarpo.algorithms.choice import make_algorithm, reads
from astarpo.cli import main
from astarpo.config import TrainConfig
from astarpo.config.documents import build
from astarpo.runtime import plugins
from astarpo.runtime.given import hand_over
from astarpo.tasks import get_task
from astarpo.types import UserError
from tests.support.objects import ROWS, first_digit

SHARED = {"problems": ROWS, "reward": first_digit(), "steps": 2, "prompts_per_step": 4}
SHARED |= {"minibatches": 1, "max_new_tokens": 8, "device": "cpu", "grade_workers": 1}


@dataclass(frozen=True)
class Towards(Algorithm):
    """The log-prob of a response, weighted by its reward over a baseline."""

    kl_coef: float
    baseline: float = 0.25

    def loss(self, inputs: LossInputs) -> LossOutput:
        weight_B = inputs.rollout.rewards_B - self.baseline
        logprob_B = (inputs.logprobs_BT * inputs.rollout.mask_BT).sum(dim=-1)
        coef = torch.full_like(weight_B, self.kl_coef)
        return LossOutput(-weight_B * logprob_B, {"weight": weight_B, "coef": coef})


def test_a_class_gets_the_settings_that_it_takes_by_name(policy_path, tmp_path, capsys):
    words = SHARED | {"model": str(policy_path), "out": tmp_path / "run"}
    with pytest.raises(
        UserError, match=r"beta2: tests.algorithms.test_choice:Towards does not read"
    ):
        astarpo.train(**words, algorithm=Towards, beta2=0.1)
    run = astarpo.train(**words, algorithm=Towards, kl_coef=0.125)
    assert run.config["algorithm"] == "tests.algorithms.test_choice:Towards"
    for row in run.metrics:
        assert row["weight"] == pytest.approx(row["reward"] - 0.25)
        assert row["coef"] == 0.125
    more = words | {"resume": True, "steps": 3, "kl_coef": 0.125}
    with pytest.raises(UserError, match="not what the run began with: the code of the algorithm"):
        astarpo.train(**more, algorithm=type("Towards", (Towards,), {"__module__": __name__}))
    with pytest.raises(UserError, match=r"cannot resume: algorithm was 'tests.algorithms.test_cho"):
        astarpo.train(**more, algorithm="rebel")
    assert len(astarpo.train(**more, algorithm=Towards).metrics) == 3
    again = ["--config", str(run.path / "config.json"), "--out", str(tmp_path / "again")]
    reward = ["--trust-reward", json.loads((run.path / "config.json").read_text())["trust_reward"]]
    assert main(["train", *again, *reward]) == 2
    assert "was given in Python" in capsys.readouterr().err


def test_an_instance_is_taken_as_it_is(policy_path, tmp_path):
    words = SHARED | {"model": str(policy_path), "steps": 1, "out": tmp_path / "run"}
    algorithm = Towards(kl_coef=0.5, baseline=1.0)
    (row,) = astarpo.train(**words, algorithm=algorithm).metrics
    assert (row["coef"], row["weight"]) == (0.5, pytest.approx(row["reward"] - 1.0))
    with pytest.raises(UserError, match="not what the run began with: the code of the algorithm"):
        astarpo.train(**words, algorithm=Towards(0.5, 0.75), resume=True)
    with pytest.raises(UserError, match=r"is no astarpo\.algorithms\.base\.Algorithm"):
        astarpo.train(**words | {"out": tmp_path / "other"}, algorithm=dict)


@dataclass(frozen=True)
class Needs(Towards):
    """Takes what is no setting, and has no default."""

    scale: float = None  # type: ignore[assignment]

    def __post_init__(self):
        if self.scale is None:
            raise TypeError("scale is missing")


def test_a_class_that_needs_more_than_settings_is_given_as_an_instance():
    name = "tests.algorithms.test_choice:Needs"
    config = build(TrainConfig, {"model": "m", "problems": "p", "out": "o", "algorithm": name})
    with hand_over({name: Needs}), pytest.raises(UserError, match="instance instead"):
        make_algorithm(config, 8)
    with hand_over({name: Needs(0.0, scale=2.0)}):
        assert make_algorithm(config, 8).scale == 2.0


def test_a_name_is_one_that_ships_or_is_installed():
    settings = {"model": "m", "problems": "p", "out": "o"}
    with pytest.raises(UserError, match="there is no 'astarpo'; choose from astar_po, grpo"):
        build(TrainConfig, settings | {"algorithm": "astarpo"})


def test_a_file_brings_no_algorithm(tmp_path, policy_path, problems_path, capsys):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "recipe.json").write_text(json.dumps({"algorithm": "evil:Evil"}))
    words = ["--config", tmp_path / "recipe.json", "--model", policy_path]
    words += ["--problems", problems_path, "--out", tmp_path / "run"]
    assert main(["train", *map(str, words)]) == 2
    assert "algorithm evil:Evil: was given in Python: give it again" in capsys.readouterr().err


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that adds a task and two algorithms, one of which cannot be loaded."""
    (tmp_path / "other_package.py").write_text(
        "from tests.algorithms.test_choice import Towards\n"
        "from tests.api.test_objects import Echo\n"
        "class Shout(Echo):\n    name = 'shout'\n"
    )
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[astarpo.algorithms]\ntowards = other_package:Towards\nlost = other_package:Lost\n"
        "[astarpo.tasks]\nshout = other_package:Shout\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for the processes that judge
    plugins._plugins.cache_clear()
    yield
    plugins._plugins.cache_clear()
    sys.modules.pop("other_package", None)


def test_installed_packages_add_tasks_and_algorithms(package, policy_path, tmp_path, capsys):
    problems = astarpo.load_problems("shout")
    assert get_task("shout") is get_task("shout")
    problems.save(tmp_path / "p.parquet")
    words = [
        "--model",
        policy_path,
        "--problems",
        tmp_path / "p.parquet",
        "--out",
        tmp_path / "run",
    ]
    words += ["--steps", 1, "--prompts-per-step", 2, "--max-new-tokens", 4, "--device", "cpu"]
    words += ["--algorithm", "towards", "--kl-coef", 0.5]
    assert main(["train", *map(str, words)]) == 0, capsys.readouterr().err
    (row,) = astarpo.Run(tmp_path / "run").metrics
    assert (row["reward"], row["coef"]) == (0.75, 0.5)
    capsys.readouterr()
    words[words.index("towards")] = "lost"
    words[words.index(tmp_path / "run")] = tmp_path / "other"
    assert main(["train", *map(str, words)]) == 2
    assert (
        "lost: the package other-package adds it, and cannot be loaded" in capsys.readouterr().err
    )


def test_what_an_algorithm_of_another_package_reads(package):
    assert reads("towards", "lr")
    assert reads("towards", "kl_coef")
    assert not reads("towards", "beta2")
    assert reads("grpo", "lr")
    assert not reads("grpo", "beta2")


COMPARED = """
max_new_tokens = 4
device = "cpu"
[data]
task = "arithmetic"
size = 3
limit = 8
[test]
limit = 2
[train]
prompts_per_step = 2
minibatches = 1
steps = 1
beta2 = 0.01
[towards]
kl_coef = 0.25
[variants.firm]
algorithm = "towards"
kl_coef = 0.5
[evaluate]
samples = 1
"""


def test_they_are_compared_and_swept_too(package, policy_path, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(COMPARED)
    shared = [recipe, "--model", policy_path]

    def call(*words: object) -> int:
        return main([str(word) for word in words])

    words = ["--seeds", "1", "--algorithms", "towards,firm", "--out", tmp_path / "compared"]
    assert call("compare", *shared, *words) == 0, capsys.readouterr().err
    (first,) = astarpo.Run(tmp_path / "compared" / "runs" / "towards" / "seed-1").metrics
    (second,) = astarpo.Run(tmp_path / "compared" / "runs" / "firm" / "seed-1").metrics
    assert (first["coef"], second["coef"]) == (0.25, 0.5)
    assert "| firm" in (tmp_path / "compared" / "table.md").read_text()

    words = ["--algorithms", "towards", "--over", "0.125,0.75", "--out", tmp_path / "swept"]
    swept = ["sweep", "kl_coef", *shared, "--seeds", "1", *words, "--dry-run"]
    assert call(*swept) == 0, capsys.readouterr().err
    assert "towards-kl_coef=0.75" in capsys.readouterr().out
    capsys.readouterr()
    swept[1] = "beta2"
    assert call(*swept) == 2
    assert "beta2: towards does not read it: leave it out" in capsys.readouterr().err
    words = ["--algorithms", "toward", "--out", tmp_path / "none"]
    assert call("compare", *shared, *words) == 2
    assert "no such algorithm: toward; there are astar_po" in (err := capsys.readouterr().err)
    assert "did you mean towards?" in err
