"""Runs that are stopped, damaged or given other things, and gone on with: in this process."""

import json
import os
import platform
import shutil
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import astarpo
from astarpo.cli import main
from astarpo.config import EstimateConfig, TrainConfig
from astarpo.models.policy import save_model
from astarpo.rundir.trackers import Tracker
from astarpo.runtime.files import write_sealed_json
from astarpo.runtime.locks import folder_lock
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.stopping import check_stop, stop_due
from astarpo.stages.warm_start import build_policy
from astarpo.tasks.problem_set import write_problems
from astarpo.training.checkpoint import tidy_checkpoints
from astarpo.types import Problem, TrainingStopped, UserError
from tests.conftest import digit_problems
from tests.e2e.test_stages import weights, without_costs

STEPS = 5


def held_out_problems(first: int) -> list[Problem]:
    return [
        replace(p, id=f"digits/test/{i}", prompt=({"role": "user", "content": f"Say number {i}."},))
        for i, p in enumerate(digit_problems(8), start=first)
    ]


@pytest.fixture(scope="module")
def held_out_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("held-out") / "test.parquet"
    write_problems(path, held_out_problems(0))
    return path


@pytest.fixture(scope="module")
def settings(policy_path, problems_path, held_out_path):
    return {
        "model": str(policy_path), "problems": problems_path, "eval_problems": held_out_path,
        "algorithm": "rloo", "group_size": 2, "max_new_tokens": 12, "steps": STEPS, "eval_every": 2,
        "prompts_per_step": 8, "lr": 1e-3, "micro_batch_tokens": 256, "checkpoint_every": 2,
        "keep_checkpoints": 2, "device": "cpu", "grade_workers": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert astarpo.train(TrainConfig(**settings, out=out)).summary["completed"]
    return out


@pytest.fixture
def finished(whole_run, tmp_path) -> Path:
    """A finished run to do harm to: checkpoints of steps 4 and 5."""
    return shutil.copytree(whole_run, tmp_path / "run")


@pytest.fixture
def halted(whole_run, tmp_path) -> Path:
    """A run as `kill -9` leaves it after its last step but before its end."""
    out = shutil.copytree(whole_run, tmp_path / "run")
    shutil.rmtree(out / "model")
    (out / "summary.json").unlink()
    shutil.rmtree(out / "checkpoints" / "step-000005")
    return out


def resume(settings, out, **changes):
    return astarpo.train(TrainConfig(**settings | changes, out=out, resume=True)).summary


def evaluations(run: Path) -> list[dict]:
    lines = (run / "evaluations.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(x).items() if k not in ("seconds", "check")} for x in lines
    ]


def assert_same(run: Path, other: Path) -> None:
    assert weights(run) == weights(other)
    assert without_costs(run) == without_costs(other)
    assert evaluations(run) == evaluations(other)
    names = [sorted(p.name for p in (r / "samples").iterdir()) for r in (run, other)]
    assert names[0] == names[1]


def flip(path: Path, place: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x01
    path.write_bytes(data)


SAMPLING, LEARNING = "astarpo.engines.hf.check_stop", "astarpo.training.scoring.stop_due"


def signal_at(monkeypatch, place: str, call: int, *, halfway: bool = False) -> None:
    """Sends this process a SIGTERM when one is looked for at a place for the n-th time.

    With `halfway`, when an update looks that is partly applied, and has no time of grace.
    """
    calls = []
    wanted = check_stop if place == SAMPLING else stop_due

    def look(grace_s: float = 0.0) -> bool | None:
        if not halfway or grace_s:
            calls.append(grace_s)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return wanted(0.0 if halfway else grace_s)

    monkeypatch.setattr(place, look)


@pytest.mark.parametrize(
    ("place", "call"),
    [
        (SAMPLING, 3),  # the evaluation before the first step
        (SAMPLING, 20),  # a rollout
        (SAMPLING, 58),
        (LEARNING, 1),  # the reference of the first step
        (LEARNING, 9),
        (LEARNING, 16),
        (LEARNING, 23),
    ],
)
def test_a_signal_inside_a_step_costs_that_step_alone(
    place, call, settings, whole_run, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at(patch, place, call)
        summary = astarpo.train(TrainConfig(**settings, out=out)).summary
    assert not summary["completed"]
    assert summary["steps"] < STEPS
    assert not (out / "model").exists()
    saved = sorted(path.name for path in (out / "checkpoints").glob("*"))
    assert saved[-1:] == [f"step-{summary['steps']:06d}"] * (summary["steps"] > 0)
    assert resume(settings, out)["completed"]
    assert_same(out, whole_run)


@pytest.mark.parametrize("call", [1, 5])
def test_an_update_half_applied_goes_on_from_the_checkpoint_before(
    call, settings, whole_run, tmp_path, monkeypatch, caplog
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at(patch, LEARNING, call, halfway=True)
        summary = astarpo.train(TrainConfig(**settings, out=out)).summary
    assert not summary["completed"]
    assert resume(settings, out)["completed"]
    assert_same(out, whole_run)


def test_an_update_that_ends_in_its_time_of_grace_is_kept(settings, tmp_path, monkeypatch):
    calls = []

    def look(grace_s: float = 0.0) -> bool:
        if grace_s and not calls:
            calls.append(grace_s)
            os.kill(os.getpid(), signal.SIGTERM)
        return stop_due(grace_s)

    monkeypatch.setattr(LEARNING, look)
    astarpo.train(TrainConfig(**settings, out=tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / "step-000001").exists()


def test_a_stopped_command_does_not_exit_0(settings, tmp_path, monkeypatch):
    words = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    signal_at(monkeypatch, SAMPLING, 20)
    assert main(["train", *words, f"--out={tmp_path / 'run'}"]) == 3
    monkeypatch.undo()
    assert main(["train", *words, f"--out={tmp_path / 'run'}", "--resume"]) == 0


@pytest.mark.parametrize("count", [1, 3, 40])
def test_any_process_that_is_to_stop_stops_all(count, settings, whole_run, tmp_path, monkeypatch):
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(OneProcess, "any", lambda *_: asked.append(1) or len(asked) == count)
        summary = astarpo.train(TrainConfig(**settings, out=tmp_path / "run")).summary
    assert not summary["completed"]
    assert len(asked) == count
    assert (summary["steps"] == 0) == (count < 4)
    resume(settings, tmp_path / "run")
    assert_same(tmp_path / "run", whole_run)


def test_training_in_another_thread(settings, whole_run, tmp_path):
    thread = threading.Thread(
        target=lambda: astarpo.train(TrainConfig(**settings, out=tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert_same(tmp_path / "run", whole_run)


def test_a_tracker_is_closed_when_training_fails(settings, tmp_path, monkeypatch):
    class Recorder(Tracker):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    tracker = Recorder()
    # `astarpo.stages.train` is the verb; its module is of the same name.
    monkeypatch.setattr(sys.modules["astarpo.stages.train"], "open_tracker", lambda *given: tracker)
    with pytest.raises(TrainingStopped, match="not finite"):
        astarpo.train(TrainConfig(**settings | {"lr": 1e30}, out=tmp_path / "run"))
    assert tracker.is_closed


def test_a_run_that_went_wrong_is_resumed_with_a_lower_lr(settings, tmp_path, caplog):
    out = tmp_path / "run"
    with pytest.raises(TrainingStopped, match="lower lr or raise warmup_steps, then --resume"):
        astarpo.train(TrainConfig(**settings | {"lr": 1e30, "warmup_steps": 0}, out=out))
    assert json.loads((out / "summary.json").read_text())["steps"] == 0
    assert resume(settings, out, warmup_steps=2)["completed"]
    assert "lr was 1e+30 and is 0.001 from step 1 on" in caplog.text
    changes = json.loads((out / "record.json").read_text())["changes"]
    assert changes == [{"after_step": 0, "lr": [1e30, 1e-3], "warmup_steps": [0, 2]}]


def test_checkpoints_by_time_change_nothing_else(settings, whole_run, tmp_path, monkeypatch):
    out = tmp_path / "run"
    often = {"checkpoint_every": 1000, "checkpoint_minutes": 1e-9, "keep_checkpoints": 9}
    monkeypatch.setattr("astarpo.training.checkpoint._SPARING", 0)
    astarpo.train(TrainConfig(**settings | often, out=out))
    assert_same(out, whole_run)
    assert len(list((out / "checkpoints").iterdir())) == STEPS
    shutil.rmtree(out / "checkpoints" / "step-000005")
    shutil.rmtree(out / "checkpoints" / "step-000004")
    resume(settings, out)
    assert_same(out, whole_run)


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("model/model.safetensors", flip),
        ("optimizer.safetensors", flip),
        ("state.json", flip),
        ("model/config.json", Path.unlink),
        ("state.json", Path.unlink),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(file, harm, settings, whole_run, finished, caplog):
    harm(finished / "checkpoints" / "step-000005" / file)
    resume(settings, finished)
    assert "step-000005" in caplog.text
    assert "damaged" in caplog.text
    assert "passed over" in caplog.text
    assert_same(finished, whole_run)


def test_checkpoints_that_are_gone_are_missed(settings, whole_run, halted):
    kept = shutil.move(halted / "checkpoints", halted.parent / "kept")
    metrics = (halted / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="no whole checkpoint is left; put the checkpoints back"):
        resume(settings, halted)
    assert (halted / "metrics.jsonl").read_bytes() == metrics
    shutil.move(kept, halted / "checkpoints")
    resume(settings, halted, health="warn")
    assert_same(halted, whole_run)


def test_before_the_first_checkpoint_a_run_begins_again(settings, whole_run, tmp_path, caplog):
    out = tmp_path / "run"
    with pytest.raises(UserError, match="leave --resume out"):
        resume(settings, out)
    assert not out.exists()
    astarpo.train(TrainConfig(**settings | {"steps": 1}, out=out))
    shutil.rmtree(out / "checkpoints")
    record = json.loads((out / "record.json").read_text())
    (out / "record.json").unlink()
    with pytest.raises(UserError, match="no whole checkpoint is left"):
        resume(settings, out)
    del record["digest"]
    write_sealed_json(out / "record.json", record | {"has_checkpoint": False})
    resume(settings, out)
    assert "begins again at step 1" in caplog.text
    assert_same(out, whole_run)


def test_killed_before_anything_was_written(settings, whole_run, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".unfinished-0123-config.json").write_text('{"seed"')
    (out / ".lock").write_text("{}")
    astarpo.train(TrainConfig(**settings, out=out))
    assert_same(out, whole_run)
    assert not list(out.glob(".unfinished-*"))


def test_other_contents_are_refused_under_the_same_names(
    settings, whole_run, halted, policy, problems, tmp_path
):
    mine = {
        "problems": tmp_path / "p.parquet", "eval_problems": tmp_path / "e.parquet",
        "model": str(tmp_path / "m"),
    }  # fmt: skip
    others = {"problems": "the problems", "eval_problems": "the held-out", "model": "the model"}
    for name, said in others.items():
        save_model(tmp_path / "m", build_policy(32, 2, 2, seed=1) if name == "model" else policy)
        trained = digit_problems(25)[1:] if name == "problems" else problems
        write_problems(mine["problems"], trained)
        write_problems(mine["eval_problems"], held_out_problems(int(name == "eval_problems")))
        with pytest.raises(UserError, match=f"not what the run began with: {said}"):
            resume(settings, halted, **mine)
    save_model(tmp_path / "m", policy)
    write_problems(mine["problems"], problems)
    write_problems(mine["eval_problems"], held_out_problems(0))
    resume(settings, halted, **mine)  # The same elsewhere is the same.
    assert_same(halted, whole_run)


def test_a_value_table_that_has_grown_is_refused(policy_path, problems_path, tmp_path):
    shared = {
        "model": str(policy_path), "problems": problems_path, "max_new_tokens": 24, "device": "cpu",
    }  # fmt: skip

    def sample(count: int) -> None:
        astarpo.estimate(
            EstimateConfig(**shared, out=tmp_path / "v", samples=count, allow_truncated=True)
        )

    train = {**shared, "values": tmp_path / "v", "prompts_per_step": 4, "lr": 1e-3}
    sample(2)
    astarpo.train(TrainConfig(**train, out=tmp_path / "run", steps=1))
    sample(8)
    with pytest.raises(UserError, match=r"V\* of the problems.*--values-samples"):
        resume(train, tmp_path / "run", steps=2)
    assert resume(train, tmp_path / "run", steps=2, values_samples=2)["steps"] == 2


def test_a_run_does_not_go_back(settings, whole_run, finished):
    with pytest.raises(UserError, match="step 5 already, beyond --steps 2; go on with --steps 5"):
        resume(settings, finished, steps=2)
    assert_same(finished, whole_run)
    assert resume(settings, finished, steps=5)["completed"]
    assert_same(finished, whole_run)


def test_other_steps_change_a_schedule_knowingly(settings, tmp_path, caplog):
    linear = settings | {"schedule": "linear", "steps": 2}
    astarpo.train(TrainConfig(**linear, out=tmp_path / "run"))
    resume(linear, tmp_path / "run", steps=4)
    assert "steps was 2 and is 4 from step 3 on" in caplog.text
    assert "every later learning rate (linear)" in caplog.text
    assert [row["lr"] for row in without_costs(tmp_path / "run")] == [1e-3, 5e-4, 5e-4, 2.5e-4]


@pytest.mark.parametrize(("step", "is_made_again"), [(5, True), (2, False)])
def test_damaged_metrics_are_made_again_or_named(
    step, is_made_again, settings, whole_run, finished, caplog
):
    log = finished / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    flip(log, sum(map(len, lines[: step - 1])) + 40)
    resume(settings, finished)
    if is_made_again:
        assert_same(finished, whole_run)
    else:
        assert f"damaged: without the metrics of step {step}" in caplog.text
        kept = [row for row in without_costs(whole_run) if row["step"] != step]
        assert without_costs(finished) == kept


def test_settings_are_known_though_a_file_is_damaged(settings, whole_run, halted, caplog):
    flip(halted / "config.json")
    with pytest.raises(UserError, match=r"kl_coef was 0.001 and is 0.5"):
        resume(settings, halted, kl_coef=0.5)
    resume(settings, halted)
    assert "record.json, by which it is written anew" in caplog.text
    assert_same(halted, whole_run)
    assert json.loads((halted / "config.json").read_text())["kl_coef"] == 0.001

    flip(halted / "record.json")
    resume(settings, halted)
    assert "cannot be checked" in caplog.text
    for file in ("config.json", "record.json"):
        (halted / file).write_text("{")
    with pytest.raises(UserError, match=r"config.json and record.json are damaged"):
        resume(settings, halted)


@pytest.mark.parametrize("reward", [None, "rewards.py:f"])
def test_a_run_of_version_0_1_0_is_gone_on_with(reward, settings, whole_run, halted, caplog):
    """Its `reward` is `trust_reward` now, and three settings that it had are gone."""
    record = json.loads((halted / "record.json").read_text())
    old = record["settings"] | {"center": False, "policy_scale": False, "residual_clip": None}
    del old["trust_reward"], record["digest"]
    old["reward"] = reward
    (halted / "config.json").write_text(json.dumps(old))
    write_sealed_json(halted / "record.json", record | {"settings": old})
    with pytest.raises(UserError, match=r"cannot resume: kl_coef was 0.001 and is 0.5$"):
        resume(settings, halted, kl_coef=0.5)
    resume(settings, halted, trust_reward=reward)
    assert "config.json" not in caplog.text
    assert_same(halted, whole_run)
    now = json.loads((halted / "config.json").read_text())
    assert now["trust_reward"] == reward
    assert now.keys() == json.loads((whole_run / "config.json").read_text()).keys()

    record = json.loads((halted / "record.json").read_text())
    del record["digest"]
    record["settings"]["center"] = True
    write_sealed_json(halted / "record.json", record)
    with pytest.raises(UserError, match=r"config.json: center was measured, did not help"):
        resume(settings, halted)


def test_a_run_may_go_on_elsewhere_and_says_so(settings, whole_run, halted, caplog):
    """Versions and devices are recorded; resuming with others is told, and not refused."""
    path = halted / "config.json"
    config = json.loads(path.read_text())
    here = config["environment"]
    assert here["torch"] == torch.__version__
    assert here["python"] == platform.python_version()
    assert {"astarpo", "transformers", "platform", "device", "commit"} <= here.keys()
    there = here | {"torch": "2.1", "device": "A"}
    path.write_text(json.dumps(config | {"environment": there}))
    record = json.loads((halted / "record.json").read_text())
    del record["digest"]
    write_sealed_json(halted / "record.json", record | {"environment": there})
    resume(settings, halted)
    assert f"torch was 2.1 and is {torch.__version__} from step 5 on" in caplog.text
    assert "is not as the run wrote it" not in caplog.text
    assert json.loads(path.read_text())["environment"] == here
    changes = json.loads((halted / "record.json").read_text())["changes"]
    assert changes == [
        {"after_step": 4, "torch": ["2.1", here["torch"]], "device": ["A", here["device"]]}
    ]
    assert_same(halted, whole_run)
    card = "model/README.md"
    assert (halted / card).read_bytes() == (whole_run / card).read_bytes()


def test_stray_files_and_links_do_no_harm(settings, whole_run, halted):
    (halted / "samples" / "step-x.parquet").write_text("mine")
    (halted / "checkpoints" / "step-old").mkdir()
    shutil.move(halted / "checkpoints", halted.parent / "elsewhere")
    (halted / "checkpoints").symlink_to(halted.parent / "elsewhere")
    resume(settings, halted)
    (halted / "samples" / "step-x.parquet").unlink()
    assert_same(halted, whole_run)
    assert (halted.parent / "elsewhere" / "step-000005").is_dir()


def test_a_folder_has_one_writer(settings, tmp_path):
    out = tmp_path / "run"
    with (
        folder_lock(out),
        pytest.raises(UserError, match=f"process {os.getpid()} on .* is writing"),
    ):
        astarpo.train(TrainConfig(**settings, out=out))
    assert not out.exists()


def test_what_a_kill_left_of_old_checkpoints_goes(tmp_path):
    folder = tmp_path / "checkpoints"
    for name in ("step-000001", "step-000002", "step-000003", ".unfinished-0-step-000001"):
        (folder / name).mkdir(parents=True)
        (folder / name / "state.json").touch()
    tidy_checkpoints(tmp_path, step=2, keep=1)
    assert [path.name for path in folder.iterdir()] == ["step-000002"]
