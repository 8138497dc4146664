import gzip
import json

import pytest
import torch

from astarpo.runtime.profiling import StepProfiler
from astarpo.runtime.stopwatch import Stopwatch


def forward(policy) -> None:
    policy.model(input_ids=torch.ones((1, 3), dtype=torch.long), use_cache=False)


def run_steps(profiler, policy, num_steps, num_passes, stopwatch=None) -> list[Stopwatch]:
    watches = []
    with profiler:
        for _ in range(num_steps):
            watches.append(profiler.step(stopwatch or Stopwatch()))
            with watches[-1].phase("update"):
                for _ in range(num_passes):
                    forward(policy)
            forward(policy)  # outside all phases
    return watches


def count(folder, name) -> int:
    with gzip.open(folder / "profile" / "trace.json.gz") as file:
        return sum(event["name"] == name for event in json.load(file)["traceEvents"])


@pytest.mark.parametrize(
    ("passes", "recorded"), [(1, 1), (4, 4), (6, 6), (8, 6), (16, 8), (20, 10)]
)
def test_passes_are_recorded_in_pairs_ever_further_apart(policy, tmp_path, passes, recorded):
    run_steps(StepProfiler(tmp_path, [policy.model], 1), policy, 1, passes)
    # An embedding is looked up once a pass.
    assert count(tmp_path, "aten::embedding") == recorded
    assert f"{recorded} of {passes}\n" in (tmp_path / "profile" / "table.txt").read_text()


def test_the_first_step_warms_up_and_two_are_profiled(policy, tmp_path):
    profiler = StepProfiler(tmp_path, [policy.model, policy.model], 5)
    watches = run_steps(profiler, policy, 5, 3)
    assert [type(watch) is Stopwatch for watch in watches] == [True, False, False, True, True]
    assert all(watch.seconds["update"] > 0 for watch in watches)
    assert count(tmp_path, "update") == 2
    assert count(tmp_path, "aten::embedding") == 6
    assert not policy.model.get_input_embeddings()._forward_pre_hooks


def test_it_adds_to_the_seconds_of_the_stopwatch(policy, tmp_path):
    stopwatch = Stopwatch({"update": 100.0})
    run_steps(StepProfiler(tmp_path, [policy.model], 1), policy, 1, 1, stopwatch)
    assert stopwatch.seconds["update"] > 100
    spent = (tmp_path / "profile" / "table.txt").read_text().split("update")[1].split()[0]
    assert 0 < float(spent) < 50


def test_what_was_seen_is_kept_when_the_loop_fails(policy, tmp_path):
    def fail() -> None:
        with profiler, profiler.step(Stopwatch()).phase("update"):
            forward(policy)
            raise ValueError("mine")

    profiler = StepProfiler(tmp_path, [policy.model], 1)
    with pytest.raises(ValueError, match="mine"):
        fail()
    assert count(tmp_path, "update") == 1


def test_off_it_is_not_there(policy, tmp_path):
    stopwatch = Stopwatch()
    with StepProfiler(tmp_path, [policy.model], 3, enabled=False) as profiler:
        assert profiler.step(stopwatch) is stopwatch
    assert list(tmp_path.iterdir()) == []
