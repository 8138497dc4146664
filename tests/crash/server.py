"""Processes of the command line without their seconds of imports.

A server process imports everything once; each trial is a fork of it that runs `python -m astarpo`
and ends as any process does. The server has the library of `fault.c` loaded, so each trial may be
told at which file operation it dies, or its disk fills up.
"""

import atexit
import contextlib
import ctypes
import gc
import json
import mmap
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

SOURCE = Path(__file__).with_name("fault.c")
TIME_LIMIT_S = 300.0
COUNT, KILL, FULL, READ_ONLY = range(4)

_PRELOADED = ("estimate", "train", "evaluate", "run", "warm_start", "data", "export", "report")


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Of every process that is compared: results depend on the number of threads, and transformers
writes into a saved tokenizer whether it was offline."""


@dataclass(frozen=True)
class Trial:
    """One process of the command line.

    Attributes:
        words: After `python -m astarpo`.
        folder: Where it runs; file operations below it are counted.
        fault: `COUNT`, `KILL` at the operation numbered `at`, `FULL` or `READ_ONLY` from it on.
        at: The number of a file operation, from 1.
        delay_s: How long after the others of the same call it starts.
    """

    words: Sequence[str]
    folder: Path
    fault: int = COUNT
    at: int = 0
    delay_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        status: Exit status, or minus the number of the signal that ended it.
        operations: How many file operations it began.
        out: Standard output.
        err: Standard error.
        hung: Whether it was killed for its time.
    """

    status: int
    operations: int
    out: str
    err: str
    hung: bool = False

    @property
    def has_traceback(self) -> bool:
        """Whether the user would see Python's insides."""
        return "Traceback (most recent call last)" in self.err + self.out

    @property
    def is_refusal(self) -> bool:
        """Whether it ended for a reason told to the user: exit 2, the last line says why."""
        said = [line for line in self.err.splitlines() if line.startswith("astarpo: ")]
        return self.status == 2 and len(said) == 1 and self.err.splitlines()[-1] == said[0]

    @property
    def is_one_line(self) -> bool:
        """Whether it was refused before any work: exit 2 and one line, nothing else."""
        return self.is_refusal and len(self.err.splitlines()) == 1 and not self.out


def can_build() -> bool:
    """Whether `fault.c` can be compiled here."""
    return sys.platform == "linux" and shutil.which("cc") is not None


class Server:
    """Runs trials; use it as a context manager."""

    def __init__(self, scratch: Path) -> None:
        """Compiles `fault.c` into `scratch` and starts the server.

        Args:
            scratch: A folder for the library and for what trials print.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        library = scratch / "fault.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True
        )
        environment = os.environ | ENVIRONMENT | {"LD_PRELOAD": str(library)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server", str(library), str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).parents[2],
            text=True,
        )

    def run(self, *trials: Trial) -> list[Outcome]:
        """Runs trials at the same time and waits for all of them."""
        request = [asdict(trial) | {"folder": str(trial.folder)} for trial in trials]
        assert self._process.stdin is not None, "a pipe by the constructor"
        assert self._process.stdout is not None, "a pipe by the constructor"
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return [Outcome(**outcome) for outcome in json.loads(self._process.stdout.readline())]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None, "a pipe by the constructor"
        self._process.stdin.close()
        self._process.wait(timeout=30)


def main(library: str, scratch: Path) -> None:
    """Serves requests from standard input until it ends.

    Args:
        library: The compiled `fault.c`, which this process was started with.
        scratch: Folder for what trials print.
    """
    os.environ.pop("LD_PRELOAD", None)  # not for the processes that trials start
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_everything()
    gc.freeze()
    shim = ctypes.CDLL(library)
    for line in sys.stdin:
        requests = json.loads(line)
        started = []
        for number, request in enumerate(requests):
            time.sleep(request["delay_s"])
            counter = mmap.mmap(-1, 8)
            printed = scratch / f"printed-{number}"
            child = os.fork()
            if child == 0:
                _become(request, printed, shim, counter)
            started.append((child, counter, printed))
        outcomes = [_wait(*trial) for trial in started]
        replies.write(json.dumps(outcomes) + "\n")
        replies.flush()


def _import_everything() -> None:
    import importlib

    for name in ("matplotlib.pyplot", "transformers", "pyarrow.parquet"):
        importlib.import_module(name)
    for name in ("Qwen2Config", "Qwen2ForCausalLM", "PreTrainedTokenizerFast"):
        getattr(importlib.import_module("transformers"), name)
    for name in _PRELOADED:
        importlib.import_module("astarpo.verbs").verb_home(name)
    import torch

    torch.set_num_threads(1)
    # Drawing takes longer than all else that a tiny run does.
    figure = importlib.import_module("matplotlib.figure").Figure
    figure.savefig = _save_no_picture


def _save_no_picture(_figure: Any, file: Any, **_options: Any) -> None:
    picture = b"<svg width='1' height='1'></svg>"
    if hasattr(file, "write"):
        file.write(picture)
    else:
        Path(file).write_bytes(picture)


def _become(request: dict[str, Any], printed: Path, shim: Any, counter: mmap.mmap) -> NoReturn:
    """Turns this fork into the process of a trial."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for stream, ending in ((1, "out"), (2, "err")):
        file = os.open(f"{printed}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, stream)
    os.chdir(request["folder"])
    sys.argv = ["astarpo", *request["words"]]
    place = ctypes.addressof(ctypes.c_long.from_buffer(counter))
    shim.fault_arm(
        (request["folder"] + "/").encode(),
        request["fault"],
        ctypes.c_long(request["at"]),
        ctypes.c_void_p(place),
    )
    status = 0
    try:
        runpy.run_module("astarpo", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    # What Python does at its end, but for taking its modules apart, which takes a fork seconds.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _wait(child: int, counter: mmap.mmap, printed: Path) -> dict[str, Any]:
    deadline, hung = time.monotonic() + TIME_LIMIT_S, False
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline and not hung:
            hung = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # workers that a killed trial has left
    return {
        "status": os.waitstatus_to_exitcode(ended[1]),
        "operations": ctypes.c_long.from_buffer(counter).value,
        "out": Path(f"{printed}.out").read_text(errors="replace"),
        "err": Path(f"{printed}.err").read_text(errors="replace"),
        "hung": hung,
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
