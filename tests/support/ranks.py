"""Several processes connected as ranks, forked from the one that tests run in.

They have imported all that it has, and so start in no time; `torchrun` takes many seconds.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch

from astarpo.runtime.distributed import open_ranks
from astarpo.runtime.launch import TIMEOUT
from astarpo.runtime.one_process import OneProcess

NEEDS_RANKS = pytest.mark.distributed

_LIMIT_S = 60


def in_ranks(size: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What `work(where, *args)` returns in each of so many processes, in the order of the ranks.

    Results are pickled. Fails with the traceback of a process that raised.
    """
    if size == 1:
        return [work(OneProcess(torch.device("cpu")), *args)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = _start(size, folder, work, args)
        for process in ranks:
            process.join(2 * _LIMIT_S)
            if process.is_alive():
                process.kill()
        assert not list(folder.glob("*.txt")), next(folder.glob("*.txt")).read_text()
        assert all(process.exitcode == 0 for process in ranks), ranks
        return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(size)]


def killed_ranks(size: int, work: Callable[..., Any], *args: Any) -> None:
    """Has so many processes do something in which one kills itself; the others are killed then.

    This is what torchrun does, after some seconds.
    """
    with tempfile.TemporaryDirectory() as name:
        ranks = _start(size, Path(name), work, args)
        ended = wait([process.sentinel for process in ranks], _LIMIT_S)
        for process in ranks:
            if process.sentinel not in ended:
                process.kill()
            process.join()
        codes = [process.exitcode for process in ranks if process.sentinel in ended]
    assert codes == [-signal.SIGKILL], codes


def _start(size: int, folder: Path, work: Callable[..., Any], args: Any) -> list[Any]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = []
    for rank in range(size):
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, TIMEOUT: _LIMIT_S}
        ranks.append(context.Process(target=_run, args=(rank, env, folder, work, args)))
    for process in ranks:
        process.start()
    return ranks


def _run(
    rank: int, env: dict[str, object], folder: Path, work: Callable[..., Any], args: Any
) -> None:
    os.environ |= {name: str(value) for name, value in env.items()}
    torch.set_num_threads(1)
    try:
        with open_ranks("cpu") as where:
            result = work(where, *args)
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(result))
    except BaseException:
        (folder / f"{rank}.txt").write_text(f"rank {rank}: {traceback.format_exc()}")
        raise
