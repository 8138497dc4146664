"""SPO, whose running values are state: through the real loop, killed and gone on with."""

import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from astarpo.cli import main
from astarpo.tasks.problem_set import read_problems
from astarpo.values.table import ValueTable
from tests.conftest import command, run_here
from tests.e2e.test_stages import kill_when, weights, without_costs


@pytest.fixture(scope="module")
def words(train_words):
    return [*train_words, "--algorithm", "spo", "--minibatches", 1, "--micro-batch-tokens", 1024]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, words) -> Path:
    out = tmp_path_factory.mktemp("spo") / "run"
    done = run_here(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def samples(run: Path, step: int) -> dict[str, list]:
    return pq.read_table(run / "samples" / f"step-{step:06d}.parquet").to_pydict()


def test_values_start_from_the_table_and_run(whole, table_path, problems_path):
    problems = read_problems(problems_path)
    rewards_PN = ValueTable(table_path).rewards(problems)
    first = {p.id: (r.sum() + 0.5) / 9 for p, r in zip(problems, rewards_PN, strict=True)}
    drawn = samples(whole, 1)
    assert len(set(drawn["problem_id"])) == 16  # without replacement
    assert drawn["v_star"] == pytest.approx([first[i] for i in drawn["problem_id"]])
    reward = dict(zip(drawn["problem_id"], drawn["reward"], strict=True))
    later = samples(whole, 2)
    known = zip(later["problem_id"], later["v_star"], strict=True)
    again = [(name, value) for name, value in known if name in reward]
    assert len(again) >= 8
    for name, value in again:  # None was seen before, so that all remember .96.
        a = 0.96 * 8 * first[name] + reward[name]
        assert value == pytest.approx(a / (0.96 * 8 + 1))
    rows = without_costs(whole)
    assert rows[0]["running_drift"] == 0
    assert rows[-1]["running_drift"] > 0
    assert 0.875 <= rows[-1]["running_memory"] <= 0.96


def test_killed_and_gone_on_with_it_ends_with_the_same_bits(whole, words, tmp_path):
    out = tmp_path / "run"
    saved = out / "checkpoints" / "step-000003"
    kill_when(command(*words, "--out", out), saved.exists, signal.SIGKILL)
    assert not (out / "model").exists()
    done = run_here(*words, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(whole)
    assert without_costs(out) == without_costs(whole)
    for step in range(1, 9):
        assert samples(out, step) == samples(whole, step)
    name = Path("checkpoints", "step-000008", "running_values.safetensors")
    assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert load_file(whole / name)["counts"].shape == (24, 2)


def test_a_checkpoint_without_its_values_is_not_gone_on_from(whole, words, tmp_path, caplog):
    out = shutil.copytree(whole, tmp_path / "run")
    for path in (out / "checkpoints").glob("*/running_values.safetensors"):
        path.unlink()
    assert main([*map(str, words), "--out", str(out), "--resume"]) == 2
    assert "running_values.safetensors is missing; the checkpoint is passed over" in caplog.text


def test_it_needs_a_table(words, tmp_path, capsys):
    at = words.index("--values")
    given = [*words[:at], *words[at + 2 :], "--out", tmp_path / "run"]
    assert main(list(map(str, given))) == 2
    assert "spo needs V* of each problem: give --values" in capsys.readouterr().err
