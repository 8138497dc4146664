import sys

import pytest

from astarpo.config import TrainConfig
from astarpo.rundir.trackers import Tracker, open_tracker, require_tracker
from astarpo.types import Answer, Completion, Prompt, UserError, Verdict
from tests.conftest import digit_problems

ANSWERS = [
    Answer(
        Prompt(problem, (1, 2)),
        Completion((3,), (-0.5,), "stop"),
        "<script>alert(1)</script>",
        Verdict(1.0, "1", "ok"),
    )
    for problem in digit_problems(3)
]


def log_something(tracker) -> None:
    for step in (1, 2):
        tracker.log(step, {"reward": 0.25 * step, "step": step})
        tracker.log_samples(step, ANSWERS)
    tracker.close()


def test_tensorboard_holds_metrics_and_escaped_samples(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_something(open_tracker("tensorboard", tmp_path, {"lr": 1}, steps_done=0))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(1, 0.25), (2, 0.5)]
    text = events.Tensors("samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "digits/train/0" in text
    assert "<script>" not in text


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_something(open_tracker("wandb", tmp_path, {"lr": 1}, steps_done=0))
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    pytest.importorskip("trackio")
    log_something(open_tracker("trackio", tmp_path / "run", {"lr": 1}, steps_done=0))
    assert list((tmp_path / "store").iterdir())


def test_none_shows_nothing(tmp_path):
    tracker = open_tracker("none", tmp_path, {}, steps_done=0)
    assert type(tracker) is Tracker
    log_something(tracker)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named_before_anything_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install wandb"):
        require_tracker("wandb")


def test_trackers_are_a_setting_of_training():
    config = TrainConfig(model="m", problems="p", values="v", out="o", log_to="tensorboard")
    assert config.log_to == "tensorboard"
