"""Killed, and run again: the artefacts are those of a run that nothing disturbed, to the byte."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.crash.artefacts import artefacts, differences
from tests.crash.results import DIFFERS, EQUAL, UNRULY, Finding, ending, last_line
from tests.crash.server import ENVIRONMENT, KILL, Outcome, Trial
from tests.crash.world import LONG_STEPS, World

AT_OPERATION, AT_RANDOM = "kill at a file operation", "kills at random moments"


def judge(
    world: World,
    name: str,
    folder: Path,
    attack: str,
    case: str,
    last: Outcome,
    ignored: Callable[[str], bool] = lambda name: False,
) -> Finding:
    """Compares what is there in the end with what an undisturbed run leaves.

    Args:
        world: The world.
        name: The subject.
        folder: Where it ran.
        attack: For the finding.
        case: For the finding.
        last: How the last process ended: with 0, or with a refusal because all is there already.
        ignored: Says of a file that it need not be equal.
    """
    if fault := ending(last):
        return Finding(attack, name, case, fault, last_line(last))
    found, whole = (
        {path: content for path, content in files.items() if not ignored(path)}
        for files in (artefacts(folder), world.whole(name)[0])
    )
    if differing := differences(found, whole):
        said = "" if last.status == 0 else f" ({last_line(last)})"
        return Finding(attack, name, case, DIFFERS, "; ".join(differing[:6]) + said)
    return Finding(attack, name, case, EQUAL)


def kill_at_operations(world: World, name: str, numbers: Iterable[int]) -> Iterator[Finding]:
    """Kills a command at each of these file operations and runs it again."""
    words = world.subjects[name].words
    for number in numbers:
        folder = world.start(name, world.folder / "trial")
        (killed,) = world.server.run(Trial(words, folder, fault=KILL, at=number))
        case = f"operation {number} of {world.whole(name)[1]}"
        if killed.status != -signal.SIGKILL:
            yield Finding(AT_OPERATION, name, case, UNRULY, f"not killed; {last_line(killed)}")
            continue
        last = world.go_on(name, folder)
        yield judge(world, name, folder, AT_OPERATION, case, last)


def kill_at_random(
    world: World, name: str, trials: int, seed: int
) -> Iterator[tuple[Finding, int]]:
    """Sends SIGKILL or SIGTERM to processes of their own, up to three in a row, then lets one end.

    Yields:
        What came of it, and how many processes a signal has ended.
    """
    draw = random.Random(seed)
    span_s = _duration_s(world, name)
    for number in range(trials):
        folder = world.start(name, world.folder / "trial")
        killed, words = [], world.subjects[name].words
        fault = None
        for _ in range(draw.randint(1, 3)):
            kind = draw.choice([signal.SIGKILL, signal.SIGTERM])
            status = _signal_later(words, folder, kind, draw.uniform(0, span_s))
            if status != 0 or (folder / "run" / "model").exists():
                killed += [kind.name] * (status != 0)
            elif differences(artefacts(folder), world.whole(name)[0]):
                fault = f"exit 0 after {kind.name}, though not finished"
            if (folder / "run" / "config.json").exists() and "--resume" not in words:
                words = (*words, "--resume")
        case = f"trial {number}: {', '.join(killed) or 'ended before'}"
        last = world.go_on(name, folder)
        finding = judge(world, name, folder, AT_RANDOM, case, last, _is_old_checkpoint)
        if fault and not finding.is_fault:
            finding = Finding(AT_RANDOM, name, case, UNRULY, fault)
        yield finding, len(killed)


def _duration_s(world: World, name: str) -> float:
    """How long a command works from its first file on."""
    folder = world.start(name, world.folder / "trial")
    started = time.monotonic()
    world.server.run(Trial(world.subjects[name].words, folder))
    return time.monotonic() - started


def _signal_later(words: tuple[str, ...], folder: Path, kind: int, delay_s: float) -> int:
    """Starts a process, signals it some time after it has begun to write; returns its status."""
    before = _newest(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "astarpo", *words],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and _newest(folder) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        return process.wait(timeout=delay_s)
    except subprocess.TimeoutExpired:
        process.send_signal(kind)
        return process.wait(timeout=60)


def _newest(folder: Path) -> int:
    times = []
    for path in (folder, *folder.rglob("*")):
        try:
            times.append(path.stat().st_mtime_ns)
        except FileNotFoundError:
            continue
    return max(times)


def _is_old_checkpoint(name: str) -> bool:
    """Whether a file need not be there: SIGTERM makes a checkpoint where no other run has one."""
    return "/checkpoints/" in name and f"step-{LONG_STEPS:06d}" not in name
