"""Stage 1 on a Ray cluster of two CPUs on this machine: real actors, killed, and with no room."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import astarpo
from astarpo.config import EstimateConfig
from astarpo.stages.on_ray import cluster, sampler
from astarpo.tasks.problem_set import write_problems
from astarpo.types import EngineStopped, Problem, UserError
from tests.conftest import digit_problems
from tests.e2e.test_stages import contents
from tests.support.ray import NEEDS_RAY

pytestmark = [*NEEDS_RAY]


def test_where_there_is_no_cluster_it_is_said_what_to_do(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"--ray auto: .*RAY_ADDRESS is not set, and none runs"):
        cluster.join("auto")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"Connection refused.* start one with ray start --head"):
        cluster.join("auto")
    with pytest.raises(UserError, match=r"--ray 127\.0\.0\.1:2: no Ray cluster can be joined"):
        cluster.join("127.0.0.1:2")


@pytest.fixture(scope="module")
def ray():
    """A cluster of this machine; `estimate` takes it, and leaves it as it is."""
    ray, is_ours = cluster.join("local")
    assert is_ours
    ray.shutdown()  # This machine's own CPUs may be one.
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture
def settings(policy_path, problems_path, tmp_path) -> dict:
    return {
        "model": str(policy_path), "problems": problems_path, "out": tmp_path / "v", "samples": 8,
        "max_new_tokens": 24, "shard_problems": 4, "allow_truncated": True, "device": "cpu",
    }  # fmt: skip


def estimate(settings: dict, **more) -> astarpo.ValueTable:
    return astarpo.estimate(EstimateConfig(**settings | {"ray": "auto", "ray_actors": 2} | more))


def actors(at: bytes = b"") -> list[int]:
    """The processes of actors; of those that are at a method of this name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::Placed." + at):
            found.append(int(folder.name))
    return found


def kill_an_actor(out: Path, killed: list[int]) -> None:
    """Kills one that is at a shard, once another shard is there."""
    while not killed:
        time.sleep(0.001)
        if list(out.glob("samples-*")):
            for pid in actors(b"ask")[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)


@pytest.mark.usefixtures("ray")
def test_two_actors_one_killed_make_the_same_bytes(settings, tmp_path, caplog):
    settings |= {"shard_problems": 1}
    killed: list[int] = []
    killer = threading.Thread(target=kill_an_actor, args=(settings["out"], killed))
    killer.start()
    table = estimate(settings)
    killer.join()
    assert f"{table.path}" not in caplog.text
    assert ": its engine was lost (ActorDiedError" in caplog.text
    assert "1 of 3 tries" in caplog.text
    alone = astarpo.estimate(EstimateConfig(**settings | {"out": tmp_path / "alone"}))
    assert contents(table.path) == contents(alone.path)
    beside = ("seconds", "peak_memory_gib")
    facts = [{k: v for k, v in t.manifest.items() if k not in beside} for t in (table, alone)]
    assert facts[0] == facts[1]
    assert not actors()


@pytest.mark.usefixtures("ray")
def test_parts_and_rounds(settings, table_path, tmp_path):
    estimate(settings, part="2/2")
    estimate(settings, part="1/2")
    assert contents(settings["out"]) == contents(table_path)
    rounds = {"budget_samples": 80, "estimator": "shrunk", "samples": 2, "out": tmp_path / "r"}
    table = estimate(settings, **rounds)
    assert table.manifest["rounds"] > 2
    alone = astarpo.estimate(EstimateConfig(**settings | rounds | {"out": tmp_path / "alone"}))
    assert contents(table.path) == contents(alone.path)


POISON = """
import os

def score(completions, ground_truth, **columns):
    if "poison" in ground_truth:
        grading = open(f"/proc/{os.getppid()}/stat").read()
        os.kill(int(grading.rpartition(")")[2].split()[1]), 9)
    return [1.0 for _ in completions]
"""
"""Of one problem it ends the process that has the engine: the parent of the grading server."""


@pytest.mark.usefixtures("ray")
def test_a_shard_that_always_loses_its_actor_is_left_out_and_named(settings, tmp_path, caplog):
    (tmp_path / "r.py").write_text(POISON)
    reward = f"{tmp_path / 'r.py'}:score"
    problems = [
        Problem(p.id, f"reward:{reward}", p.prompt, "poison" if i == 5 else "fine")
        for i, p in enumerate(digit_problems(24))
    ]
    write_problems(tmp_path / "all.parquet", problems)
    settings |= {"trust_reward": reward, "samples": 2, "shard_problems": 1, "grade_workers": 1}
    settings |= {"problems": tmp_path / "all.parquet", "max_new_tokens": 4}
    with pytest.raises(EngineStopped, match=r"1 of 24 shards failed 3 times .* digits/train/5\. "):
        estimate(settings)
    assert "failed 3 times (ActorDiedError" in caplog.text
    assert len(list(settings["out"].glob("samples-*"))) == 23
    # What the message says.
    write_problems(tmp_path / "fewer.parquet", problems[:5] + problems[6:])
    table = estimate(settings, problems=tmp_path / "fewer.parquet")
    assert table.values().v_star_P.tolist() == [1.0] * 23


def test_where_there_is_no_room_it_ends_with_a_line(settings, ray, monkeypatch, caplog):
    @ray.remote(num_cpus=2)
    class Other:
        def ready(self):
            pass

    other = Other.remote()
    ray.get(other.ready.remote())
    monkeypatch.setattr(sampler, "PATIENCE_S", 2.0)
    monkeypatch.setattr(sampler, "_SECONDS_BETWEEN_WORDS", 1.0)
    monkeypatch.setattr(sampler, "_POLL_S", 0.5)
    with pytest.raises(UserError, match=r"no room for an engine in .* 2 CPUs, 0 of them free; an"):
        estimate(settings)
    assert "waiting for room: the cluster has 2 CPUs, 0 of them free" in caplog.text
    assert not settings["out"].exists()
    ray.kill(other)
    monkeypatch.undo()
    assert estimate(settings).num_samples == 8


@pytest.mark.usefixtures("ray")
def test_an_engine_that_cannot_be_opened_is_one_line(settings, problems_path, tmp_path):
    with pytest.raises(UserError, match="vLLM is not installed"):
        estimate(settings, engine="vllm")
    assert not settings["out"].exists()


@pytest.mark.usefixtures("ray")
def test_a_function_of_the_caller_judges_on_the_cluster(settings, tmp_path):
    def score(completions, ground_truth, **columns):
        return [float(truth) / 2 for truth in ground_truth]

    rows = [{"prompt": f"Item {i}:", "answer": str(i % 3)} for i in range(6)]
    del settings["problems"]
    table = astarpo.estimate(**settings, problems=rows, reward=score, ray="auto", beta1=1e9)
    assert table.values().mean_P.tolist() == [0, 0.5, 1, 0, 0.5, 1]
