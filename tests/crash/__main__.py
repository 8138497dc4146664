"""All attacks: `make crash-test`. Exit status 1 where a promise is broken.

Prints a table. With `--publish`, writes figures and faults to benchmarks/results/reliability.json,
and the figures to docs/reliability.md.
"""

import argparse
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.crash import disks, flips, kills, pairs, wrong_uses
from tests.crash.results import SILENT, TRACEBACK, Finding, count
from tests.crash.server import FULL, READ_ONLY, Server, can_build
from tests.crash.world import World

_ROOT = Path(__file__).parents[2]
_RESULTS = _ROOT / "benchmarks" / "results" / "reliability.json"
_PAGE = _ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- figures of make crash-test -->\n", "<!-- end of figures -->\n"

# Every how many of its file operations a command is killed: `run` is made of the other commands.
_KILL_STRIDES = {
    "data": 1,
    "warm-start": 1,
    "estimate": 1,
    "train": 3,
    "evaluate": 1,
    "export": 1,
    "run": 15,
}
_FAILING_DISKS = 4  # of each command and kind, evenly spread over its file operations
_PAIRS = 4  # of each command
_FLIPS = 8  # of each file
_TMPFS_PAGES = (4, 8, 12, 20, 30)
_RANDOM_TRIALS = 4  # of each long command


class Run:
    """All attacks, one after another.

    Attributes:
        findings: So far.
        signals: How many processes the random signals have ended.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.findings: list[Finding] = []
        self.signals = 0

    def attacks(self) -> dict[str, Callable[[], Iterator[Finding]]]:
        """Each by name."""
        return {
            "operations": self._operations,
            "random": self._random,
            "flips": self._flips,
            "pairs": self._pairs,
            "disks": self._disks,
            "uses": lambda: wrong_uses.misuse(self._world, wrong_uses.CASES),
        }

    def _operations(self) -> Iterator[Finding]:
        for name, stride in _KILL_STRIDES.items():
            numbers = range(1, self._world.whole(name)[1] + 1, stride)
            yield from kills.kill_at_operations(self._world, name, numbers)

    def _random(self) -> Iterator[Finding]:
        for name in ("long estimate", "long train"):
            for finding, ended in kills.kill_at_random(self._world, name, _RANDOM_TRIALS, seed=0):
                self.signals += ended
                yield finding

    def _flips(self) -> Iterator[Finding]:
        for target in flips.TARGETS:
            yield from flips.flip(self._world, target, _FLIPS, seed=0)

    def _pairs(self) -> Iterator[Finding]:
        for name in _KILL_STRIDES:
            yield from pairs.run_pairs(self._world, name, _PAIRS, seed=0)

    def _disks(self) -> Iterator[Finding]:
        draw = random.Random(0)
        for name in _KILL_STRIDES:
            operations = self._world.whole(name)[1]
            for fault in (FULL, READ_ONLY):
                later = draw.sample(range(2, operations + 1), min(_FAILING_DISKS, operations) - 1)
                yield from disks.fail_from(self._world, name, fault, [1, *sorted(later)])
        if os.geteuid() == 0:
            for name in ("estimate", "train"):
                yield from disks.fill_tmpfs(self._world, name, _TMPFS_PAGES)


def figures(findings: Iterable[Finding], signals: int) -> dict[str, int]:
    """The figures of docs/reliability.md."""
    rows = list(findings)

    def number(attacks: set[str], **wanted: str) -> int:
        chosen = (row for row in rows if row.attack in attacks)
        return sum(all(getattr(row, k) == v for k, v in wanted.items()) for row in chosen)

    failing = {*disks.NAMES.values(), disks.REAL}
    return {
        "kills at a file operation": number({kills.AT_OPERATION}),
        "ended byte-equal": number({kills.AT_OPERATION}, result="equal"),
        "processes ended by random signals": signals,
        "trials of random signals": number({kills.AT_RANDOM}),
        "trials ended byte-equal": number({kills.AT_RANDOM}, result="equal"),
        "flips": number({flips.ATTACK}),
        "flips silent": number({flips.ATTACK}, result=SILENT),
        "two at once": number({pairs.ATTACK}),
        "two at once, ended byte-equal": number({pairs.ATTACK}, result="equal"),
        "failing disks": number(failing),
        "failing disks, ended byte-equal": number(failing, result="equal"),
        "wrong uses": number({wrong_uses.ATTACK}),
        "wrong uses refused in one line": number({wrong_uses.ATTACK}, result="refused"),
        "tracebacks": sum(row.result == TRACEBACK for row in rows),
        "faults": sum(row.is_fault for row in rows),
    }


def table(findings: Iterable[Finding]) -> str:
    """How often each result came, by attack and subject, in Markdown."""
    lines = ["| attack | tried | ended |", "|---|---:|---|"]
    for name, results in count(findings).items():
        told = ", ".join(f"{result} {number}" for result, number in results.items())
        lines.append(f"| {name} | {sum(results.values())} | {told} |")
    return "\n".join(lines)


def main() -> int:
    """Runs the attacks that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("attacks", nargs="*", help="operations random flips pairs disks uses")
    parser.add_argument("--publish", action="store_true", help="write the figures down")
    arguments = parser.parse_args()
    if not can_build():
        print("crash-test needs Linux and a C compiler (cc)", file=sys.stderr)
        return 2
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="crash-test-"))
    try:
        with Server(folder / "server") as server:
            run = Run(World(folder, server))
            attacks = run.attacks()
            for name in arguments.attacks or attacks:
                for finding in attacks[name]():
                    run.findings.append(finding)
                    if finding.is_fault:
                        print(f"FAULT {finding}", flush=True)
                print(f"{name}: done after {time.monotonic() - started:.0f} s", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _report(run, time.monotonic() - started, publish=arguments.publish)


def _report(run: Run, seconds: float, *, publish: bool) -> int:
    result: dict[str, Any] = {
        "machine": {"cores": os.cpu_count()},
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds),
        "figures": figures(run.findings, run.signals),
        "counts": count(run.findings),
        "faults": [vars(finding) for finding in run.findings if finding.is_fault],
    }
    print(table(run.findings))
    print(json.dumps(result["figures"], indent=1))
    if publish:
        _RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        before, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
        after = rest.partition(_END)[2]
        page = f"{before}{_BEGIN}{_figures_in_markdown(result)}{_END}{after}"
        _PAGE.write_text(page, encoding="utf-8")
    return int(bool(result["faults"]))


def _figures_in_markdown(result: dict[str, Any]) -> str:
    made = f"{result['date']}, {result['machine']['cores']} cores, {result['seconds']} s"
    rows = [f"| {name} | {number} |" for name, number in result["figures"].items()]
    return "\n".join([f"| {made} | |", "|---|---:|", *rows]) + "\n"


if __name__ == "__main__":
    logging.getLogger("astarpo").setLevel(logging.WARNING)
    sys.exit(main())
