"""A full disk, a read-only one: a line that says so; with room again, the same bytes."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.artefacts import fresh
from tests.crash.kills import judge
from tests.crash.results import UNRULY, Finding, ending, last_line
from tests.crash.server import FULL, READ_ONLY, Outcome, Trial
from tests.crash.world import World

NAMES = {FULL: "disk full", READ_ONLY: "disk read-only"}
REAL = "small tmpfs, then read-only"


def fail_from(world: World, name: str, fault: int, numbers: Iterable[int]) -> Iterator[Finding]:
    """Lets the disk fail from each of these file operations on; then runs the command again."""
    for number in numbers:
        folder = world.start(name, world.folder / "trial")
        trial = Trial(world.subjects[name].words, folder, fault=fault, at=number)
        (failed,) = world.server.run(trial)
        case = f"from operation {number} of {world.whole(name)[1]}"
        yield _judge(world, name, folder, NAMES[fault], case, failed)


def fill_tmpfs(world: World, name: str, pages: Iterable[int]) -> Iterator[Finding]:
    """The same on a real disk that has so many pages left; needs root."""
    for number in pages:
        with _tmpfs(world.folder / "disk", number) as disk:
            folder = disk / "trial"
            source = world.subjects[name].after
            fresh(folder, like=world.undisturbed(source) if source else None)
            trial = Trial(world.subjects[name].words, folder)
            state = os.statvfs(disk)
            size = state.f_blocks - state.f_bfree + number
            subprocess.run(["mount", "-o", f"remount,nr_blocks={size}", str(disk)], check=True)
            (full,) = world.server.run(trial)
            subprocess.run(["mount", "-o", "remount,nr_blocks=65536,ro", str(disk)], check=True)
            (read_only,) = world.server.run(trial)
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            case = f"{number} pages"
            if full.status and not read_only.is_refusal:
                yield Finding(REAL, name, case, UNRULY, f"read-only: {last_line(read_only)}")
            else:
                yield _judge(world, name, folder, REAL, case, full)


def _judge(
    world: World, name: str, folder: Path, attack: str, case: str, failed: Outcome
) -> Finding:
    if fault := ending(failed):
        return Finding(attack, name, case, fault, last_line(failed))
    return judge(world, name, folder, attack, case, world.go_on(name, folder))


@contextmanager
def _tmpfs(path: Path, pages: int) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "nr_blocks=65536", "tmpfs", str(path)]
    subprocess.run(mount, check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)
