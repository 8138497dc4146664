"""Stage 1 in parts: several processes fill one table, in any order, killed, twice, with holes."""

import importlib.util
import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import astarpo
from astarpo.cli import main
from astarpo.config import EstimateConfig
from astarpo.runtime.locks import folder_lock
from astarpo.types import UserError
from astarpo.values.manifest import shard_engines
from astarpo.values.table import ValueTable
from tests.conftest import command
from tests.e2e.test_stages import contents, kill_when


@pytest.fixture
def settings(policy_path, problems_path, tmp_path) -> dict:
    return {
        "model": str(policy_path), "problems": problems_path, "out": tmp_path / "v", "samples": 8,
        "max_new_tokens": 24, "shard_problems": 4, "allow_truncated": True, "device": "cpu",
    }  # fmt: skip


def part(settings: dict, which: str | None, **more) -> ValueTable:
    return astarpo.estimate(EstimateConfig(**settings | {"part": which} | more))


def facts(table: Path) -> dict:
    """The manifest without what differs from run to run."""
    manifest = json.loads((table / "manifest.json").read_text())
    return {k: v for k, v in manifest.items() if k not in ("seconds", "peak_memory_gib", "digest")}


def shards(table: Path) -> set[str]:
    return {path.name for path in table.glob("samples-*.parquet")}


def test_parts_at_once_one_killed_and_one_started_twice_make_the_table(
    estimate_words, table_path, tmp_path, capsys
):
    out = tmp_path / "v"
    words = [*estimate_words, "--out", out, "--part"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    twice = [subprocess.Popen(command(*words, "2/2"), **quiet) for _ in range(2)]
    kill_when(command(*words, "1/2"), lambda: shards(out), signal.SIGKILL, within_s=300)
    assert [process.wait(timeout=300) for process in twice] == [0, 0]
    assert not (out / "values.parquet").exists()
    assert main([*map(str, words), "1/2"]) == 0
    assert "solve rate of 24 problems over 8 samples" in capsys.readouterr().err
    assert contents(out) == contents(table_path)
    assert facts(out) == facts(table_path)
    assert {path.name for path in out.iterdir()} == {path.name for path in table_path.iterdir()}
    manifest = ValueTable(out).manifest
    assert manifest["seconds"].keys() == {"generate", "verify"}
    assert manifest["peak_memory_gib"] > 0


def test_the_last_part_completes_the_table_and_the_others_say_what_is_missing(
    settings, table_path, caplog, capsys
):
    caplog.set_level("INFO")
    out = settings["out"]
    assert part(settings, "2/3").manifest["parts"] == 3
    assert len(shards(out)) == 2
    assert (
        "part 2/3 is done; 4 of 6 shards are missing, of parts 1,3: the last part to finish "
        "completes the table. If they are not running, run them again, or this command without "
        "--part, which samples whatever is missing"
    ) in caplog.text
    with pytest.raises(UserError, match="unfinished; run the same astarpo estimate again"):
        ValueTable(out).values()
    words = ["--part", "3/3", *(w for k, v in settings.items() for w in _flag(k, v))]
    assert main(["estimate", *words]) == 0
    told = capsys.readouterr().err
    assert "2 of 6 shards are missing, of part 1: " in told
    assert f"value table: {out}, unfinished" in told
    assert "astarpo train" not in told  # There is nothing yet to train with.
    part(settings, "1/3")
    assert contents(out) == contents(table_path)
    assert facts(out) == facts(table_path)
    assert main(["estimate", *words]) == 0  # Once more: nothing is missing, nothing changes.
    assert "astarpo train" in capsys.readouterr().err
    assert contents(out) == contents(table_path)


def _flag(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, str(value)]


def test_whatever_is_missing_is_done_without_part(settings, table_path):
    part(settings, "1/2")
    part(settings, None)
    assert contents(settings["out"]) == contents(table_path)
    assert facts(settings["out"]) == facts(table_path)


@pytest.mark.parametrize("again", ["1/2", "2/2", None])
def test_a_hole_is_filled_under_its_own_name(settings, table_path, again, monkeypatch):
    """By the part that it belongs to, in a table that was whole; no other has anything to do."""
    out = shutil.copytree(table_path, settings["out"])
    lost, damaged = sorted(shards(out))[:2]
    (out / lost).unlink()
    (out / damaged).write_bytes((out / damaged).read_bytes()[:-9])
    table = part(settings, again)
    if again is not None:
        other = {"1/2": "2/2", "2/2": "1/2"}[again]
        table = part(settings, other)
    (out / f"damaged-{damaged}").unlink(missing_ok=True)
    assert contents(out) == contents(table_path)
    assert table.values().v_star_P.shape == (24,)


def test_a_damaged_shard_of_another_part_is_found_before_the_table_is_completed(
    settings, table_path, caplog
):
    caplog.set_level("INFO")
    out = settings["out"]
    part(settings, "1/2")
    first = next(out.glob("samples-*.parquet"))
    first.write_bytes(first.read_bytes()[:-9])
    part(settings, "2/2")
    assert f"{first}: damaged" in caplog.text
    assert "1 of 6 shards are missing, of part 1: " in caplog.text
    part(settings, "1/2")
    (out / f"damaged-{first.name}").unlink()
    assert contents(out) == contents(table_path)


def test_a_part_that_is_done_loads_no_model(settings, monkeypatch):
    part(settings, "1/2")
    monkeypatch.setattr("astarpo.stages.sampling.load_engine", None)
    part(settings, "1/2")
    with pytest.raises(TypeError):
        part(settings, "2/2")


def test_a_part_of_another_plan_is_refused_and_what_is_said_helps(settings, caplog):
    out = settings["out"]
    part(settings, "1/2")
    differ = {
        r"samples: 8 in the table and 4 here": {"samples": 4},
        r"shard_problems: 4 in the table and 6 here": {"shard_problems": 6},
        r"number of problems: 24 in the table and 20 here": {"limit": 20},
        r"problems or their prompts: ": {"limit": 20},
    }
    for said, change in differ.items():
        with pytest.raises(UserError, match=rf"parts of another plan fill this table .*{said}"):
            part(settings, "2/2", **change)
    with pytest.raises(UserError, match=r"or give another --out$"):
        part(settings, "2/2", samples=4)
    part(settings, "2/2", samples=4, out=out.with_name("other"))
    part(settings, None)  # Finish that one first ...
    table = part(settings, "1/2", samples=10)
    assert table.num_samples == 8
    table = part(settings, "2/2", samples=10)
    assert table.num_samples == 10
    assert part(settings, "1/1", samples=8).num_samples == 8


def test_a_plan_binds_before_there_is_a_sample(settings, policy_path, monkeypatch):
    """Another part may be at its first shard."""
    with monkeypatch.context() as patch:
        patch.setattr("astarpo.stages.sampling.roll_out", None)
        with pytest.raises(TypeError):
            part(settings, "1/2")
    out = settings["out"]
    assert not shards(out)
    with pytest.raises(UserError, match=rf"or, as it has no samples yet, delete {out}$"):
        part(settings, "2/2", samples=4)
    with pytest.raises(UserError, match=r"temperature is 1\.0 in the table and 0.5 here"):
        part(settings, "2/2", temperature=0.5)
    shutil.rmtree(out)
    part(settings, "2/2", samples=4)


def test_holes_in_a_table_that_has_grown(settings, tmp_path):
    """Each is filled as it was: 2 samples of 20 problems, then 4 of 24."""
    few = {"samples": 2, "limit": 20}
    for which in ("1/2", "2/2"):
        part(settings, which, **few)
    for which in ("1/3", "2/3", "3/3"):
        part(settings, which, samples=4)
    out = settings["out"]
    whole = contents(out)
    assert len(shards(out)) == 5 + 6
    one = part(settings, None, out=tmp_path / "one", **few).path
    part(settings, None, out=one, samples=4)
    assert contents(one) == whole
    assert facts(one) == facts(out)
    for name in sorted(shards(out))[1:]:  # A table of no samples would start afresh.
        (out / name).unlink()
    part(settings, "1/1", samples=4)
    assert contents(out) == whole


def test_a_part_waits_for_nobody_and_refuses_where_one_process_does_all(settings, capsys):
    with folder_lock(settings["out"]), pytest.raises(UserError, match="is writing here without"):
        part(settings, "1/2")


@pytest.mark.parametrize(
    ("given", "said"),
    {
        "0/2": "there is no such part; of 2 give 1/2 to 2/2",
        "3/2": "there is no such part; of 2 give 1/2 to 2/2",
        "1/0": "give it as I/N, such as 1/8",
        "2": "give it as I/N, such as 1/8",
        "/": "give it as I/N, such as 1/8",
        "-1/2": "give it as I/N, such as 1/8",
        "one/two": "give it as I/N, such as 1/8",
        "1/2 --rejudge": "--part and --rejudge do not go together",
        "1/2 --profile": "--part and --profile do not go together",
        "1/2 --budget-samples 99 --estimator shrunk": "--part and --budget-samples do not go tog",
    }.items(),
)
def test_what_is_no_part_is_refused_in_one_line(given, said, estimate_words, tmp_path, capsys):
    first, *more = given.split()
    words = [*map(str, estimate_words), "--out", str(tmp_path / "v"), f"--part={first}", *more]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "v").exists()


def test_shards_say_which_engine_sampled_them(settings, table_path, tmp_path):
    engines = shard_engines(table_path)
    assert engines.keys() == shards(table_path)
    assert {text.split()[0] for text in engines.values()} == {"hf"}
    part(settings, None, samples=2)
    part(settings, None, samples=4, engine="generate")
    both = [text.split()[0] for text in shard_engines(settings["out"]).values()]
    assert sorted(both) == ["generate"] * 6 + ["hf"] * 6


def test_a_dry_run_says_what_a_part_would_do(settings, estimate_words, capsys):
    words = [*map(str, estimate_words), "--out", str(settings["out"]), "--dry-run"]
    assert main([*words, "--part", "2/4"]) == 0
    assert "part 2/4: 64 of 192 samples, 0 already there" in capsys.readouterr().out
    part(settings, "2/4")
    assert main([*words, "--part", "2/4"]) == 0
    assert "part 2/4: 64 of 192 samples, 64 already there" in capsys.readouterr().out
    assert main([*words, "--part", "2/4", "--samples", "4"]) == 2


def test_a_cluster_that_cannot_be_is_one_line(estimate_words, tmp_path, monkeypatch, capsys):
    words = [*map(str, estimate_words), "--out", str(tmp_path / "v")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for more, said in {
        "--ray auto": "--ray: Ray is not installed; pip install 'astarpo[ray]', or share the work",
        "--ray-actors 2": "--ray-actors is of a Ray cluster: give --ray too",
        "--ray auto --profile": "--ray and --profile do not go together",
    }.items():
        assert main([*words, *more.split()]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
