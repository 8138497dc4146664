import gzip
import json
import warnings

import pytest
import torch

from astarpo.runtime.profiling import profile_steps
from astarpo.runtime.stopwatch import Stopwatch


def forward(policy) -> None:
    policy.model(input_ids=torch.ones((1, 3), dtype=torch.long), use_cache=False)


def run_steps(out, policy, num_steps, num_passes, num_planned=None, **settings) -> Stopwatch:
    stopwatch = Stopwatch()
    with profile_steps(out, num_planned or num_steps, **settings) as begin_step:
        for _ in range(num_steps):
            begin_step()
            with stopwatch.phase("update"):
                for _ in range(num_passes):
                    forward(policy)
            with stopwatch.phase("verify"):
                pass
    return stopwatch


def count(folder, name) -> int:
    with gzip.open(folder / "profile" / "trace.json.gz") as file:
        return sum(event["name"] == name for event in json.load(file)["traceEvents"])


def table(folder) -> list[str]:
    return (folder / "profile" / "table.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("num_steps", "profiled"), [(1, 1), (2, 1), (3, 2), (5, 2)], ids=lambda n: str(n)
)
def test_the_first_of_several_steps_warms_up_and_two_are_profiled(
    policy, tmp_path, num_steps, profiled
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_steps(tmp_path, policy, num_steps, 3)
    assert count(tmp_path, "update") == count(tmp_path, "verify") == profiled
    assert count(tmp_path, "aten::embedding") == 3 * profiled  # one lookup a pass
    assert table(tmp_path)[0] == f"steps profiled, and slower for it: {profiled}"


def test_the_table_says_where_the_time_went(policy, tmp_path):
    stopwatch = run_steps(tmp_path, policy, 4, 2)
    lines = table(tmp_path)
    assert lines[1].split() == ["phase", "seconds", "share"]
    shares = {}
    for line in lines[2:4]:
        phase, seconds, share = line.split()
        assert 0 <= float(seconds) <= stopwatch.seconds[phase]  # of half of the steps
        shares[phase] = float(share.removesuffix("%"))
    assert shares.keys() == {"update", "verify"}
    assert sum(shares.values()) == pytest.approx(100, abs=0.2)
    assert any("aten::mm" in line for line in lines[4:])
    assert lines[4] == ""  # nothing else is a phase


def test_steps_of_an_optimizer_are_no_phase(tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
    with profile_steps(tmp_path, 1) as begin_step:
        begin_step()
        with Stopwatch().phase("update"):
            optimizer.step()
    assert [line.split()[0] for line in table(tmp_path)[2:3]] == ["update"]
    assert table(tmp_path)[2].endswith("100.0%")
    assert table(tmp_path)[3] == ""


def test_a_loop_that_ends_early_leaves_what_was_seen(policy, tmp_path):
    run_steps(tmp_path, policy, 2, 1, num_planned=50)
    assert count(tmp_path, "update") == 1


def test_what_was_seen_is_kept_when_the_loop_fails(policy, tmp_path):
    def fail() -> None:
        with profile_steps(tmp_path, 1) as begin_step:
            begin_step()
            with Stopwatch().phase("update"):
                forward(policy)
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert count(tmp_path, "update") == 1


@pytest.mark.parametrize(("num_steps", "enabled"), [(3, False), (0, True)])
def test_off_or_without_a_step_it_is_not_there(policy, tmp_path, num_steps, enabled):
    run_steps(tmp_path, policy, num_steps, 1, enabled=enabled)
    assert list(tmp_path.iterdir()) == []
