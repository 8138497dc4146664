"""A small sample of `make crash-test`: see tests/crash and docs/reliability.md."""

import json
import signal

import pytest

from tests.crash import disks, flips, kills, pairs, wrong_uses
from tests.crash.__main__ import figures, table
from tests.crash.artefacts import artefacts, differences
from tests.crash.server import FULL, KILL, READ_ONLY, Server, Trial, can_build
from tests.crash.world import World

pytestmark = pytest.mark.skipif(not can_build(), reason="needs Linux and a C compiler")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crash")
    with Server(folder / "server") as server:
        yield World(folder, server)


def spread(world: World, name: str, count: int) -> list[int]:
    """Numbers of file operations, evenly over those of a command."""
    operations = world.whole(name)[1]
    return [1 + operations * (2 * i + 1) // (2 * count + 1) for i in range(count)]


def test_times_are_no_difference_and_a_byte_is(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"seconds": 1, "step": 1}\n')
    (tmp_path / "shard.parquet").write_bytes(b"abc")
    before = artefacts(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"seconds": 2, "step": 1}\n')
    assert not differences(artefacts(tmp_path), before)
    (tmp_path / "shard.parquet").write_bytes(b"abd")
    (tmp_path / "rows.jsonl").write_text('{"seconds": 2, "step": 2}\n')
    (tmp_path / "left").touch()
    assert differences(artefacts(tmp_path), before) == [
        "left: left over",
        "rows.jsonl: differs",
        "shard.parquet: differs",
    ]


def test_a_process_dies_at_the_operation_that_is_named(world):
    folder = world.start("data", world.folder / "trial")
    words = world.subjects["data"].words
    sizes = []
    for number in range(1, world.whole("data")[1] + 1):
        (killed,) = world.server.run(Trial(words, folder, fault=KILL, at=number))
        assert killed.status == -signal.SIGKILL
        assert killed.operations == number
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*.parquet")))
        folder = world.start("data", folder)
    whole = (world.undisturbed("data") / "problems.parquet").stat().st_size
    assert sizes[0] == 0
    assert any(0 < size < whole for size in sizes)  # killed amid a write
    assert sizes[-1] == whole


@pytest.mark.parametrize(("name", "count"), [("data", 1), ("estimate", 2), ("train", 3)])
def test_killed_at_a_file_operation_and_run_again(world, name, count):
    findings = kills.kill_at_operations(world, name, spread(world, name, count))
    assert [finding for finding in findings if finding.is_fault] == []


@pytest.mark.parametrize("target", flips.TARGETS[::2], ids=lambda target: target.what)
def test_a_flipped_bit_is_never_silent(world, target):
    assert [finding for finding in flips.flip(world, target, 1, seed=0) if finding.is_fault] == []


@pytest.mark.parametrize("name", ["estimate", "train"])
def test_two_at_once(world, name):
    findings = pairs.run_pairs(world, name, 1, seed=0)
    assert [finding for finding in findings if finding.is_fault] == []


@pytest.mark.parametrize(("name", "fault"), [("estimate", FULL), ("train", READ_ONLY)])
def test_a_disk_that_fails(world, name, fault):
    findings = disks.fail_from(world, name, fault, spread(world, name, 1))
    assert [finding for finding in findings if finding.is_fault] == []


def test_wrong_uses(world):
    findings = wrong_uses.misuse(world, wrong_uses.CASES[::24])
    assert [finding for finding in findings if finding.is_fault] == []


def test_the_figures_count_what_was_found(world):
    """What the page of the docs says comes from findings alone."""
    findings = list(kills.kill_at_operations(world, "data", [1, 2]))
    told = figures(findings, signals=3)
    assert told["kills at a file operation"] == told["ended byte-equal"] == 2
    assert told["processes ended by random signals"] == 3
    assert told["faults"] == 0
    assert json.dumps(told)
    assert "| kill at a file operation: data | 2 | equal 2 |" in table(findings)
