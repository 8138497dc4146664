"""Ranks give what one process gives: tables to the byte, samples to the token, metrics to 1e-6."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.distributed.work import RUNS, work
from tests.support.torchrun import torchrun

COSTS = ("seconds", "tokens_per_second", "peak_memory_gib", "device_memory", "check", "sync_")

OF_THE_ENGINE = ("ppo", "rebel", "engine_kl", "engine_kl_std")
"""Losses and metrics that go by the engine's own log-probs. It rounds them by what is sampled at
the same time, which is another company on each number of ranks."""

ROUNDING = 2e-5


@pytest.fixture(scope="module")
def alone(folder) -> Path:
    work(folder, "alone")
    return folder / "alone"


@pytest.fixture(scope="module", params=[2, 3])
def shared(request, folder, alone) -> Path:
    name = f"ranks-{request.param}"
    done = torchrun(request.param, "-m", "tests.distributed.work", folder, name)
    assert done.status == 0, done.stderr
    return folder / name


@pytest.mark.parametrize("table", ["values", "one-shard", "rounds"])
def test_tables_are_the_same_bytes(alone, shared, table):
    names = {file.name for file in (alone / table).glob("*.parquet")}
    assert len(names) > 1
    assert names == {file.name for file in (shared / table).glob("*.parquet")}
    for name in names:
        assert (alone / table / name).read_bytes() == (shared / table / name).read_bytes()


@pytest.mark.parametrize("run", RUNS)
def test_runs_sample_the_same_and_measure_the_same(alone, shared, run):
    for step in (1, 2):
        file = Path(run) / "samples" / f"step-{step:06d}.parquet"
        ours, theirs = pq.read_table(alone / file), pq.read_table(shared / file)
        assert ours.drop_columns("v_star") == theirs.drop_columns("v_star")
    assert len(rows(alone / run / "metrics.jsonl")) == 2
    for file in ("metrics.jsonl", "evaluations.jsonl"):
        for ours, theirs in zip(rows(alone / run / file), rows(shared / run / file), strict=True):
            assert ours.keys() == theirs.keys()
            for name, value in ours.items():
                near = ROUNDING if run in OF_THE_ENGINE or name in OF_THE_ENGINE else 1e-6
                is_number = isinstance(value, float)
                wanted = pytest.approx(value, rel=near, abs=near) if is_number else value
                assert theirs[name] == wanted, name


def test_evaluations_are_the_same(alone, shared):
    ours, theirs = (json.loads((path / "scores.json").read_text()) for path in (alone, shared))
    assert ours["statuses"] == theirs["statuses"]
    for name, score in ours["scores"].items():
        assert score == pytest.approx(theirs["scores"][name], rel=1e-6, abs=1e-6)
    answers = [pq.read_table(path / "scores.parquet") for path in (alone, shared)]
    assert answers[0] == answers[1]


def rows(path: Path) -> list[dict]:
    """Numbers of a file of JSON lines, costs and digests apart."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if not name.startswith(COSTS)} for row in found
    ]
