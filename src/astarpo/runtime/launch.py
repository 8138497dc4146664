"""How this process was started: alone, or by torchrun as one rank of several. Imports no torch."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from astarpo.types import UserError

TIMEOUT = "ASTARPO_RANK_TIMEOUT"
"""Environment variable: seconds after which a rank that others wait for counts as hanging."""

_TIMEOUT_S = 1800.0
"""Longer than a rank ever takes from one exchange to the next but for stage 1, where it shows that
it works: the first rank writes a checkpoint of a large model, the others wait."""


class Launch(NamedTuple):
    """The place of this process among those that were started together.

    Attributes:
        rank: Its number among all, from 0.
        size: How many there are on all machines.
        local_rank: Its number on this machine.
        local_size: How many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def read_launch(env: Mapping[str, str] = os.environ) -> Launch:
    """Reads the variables that torchrun sets, as Ray Train and others do too.

    Raises:
        UserError: `WORLD_SIZE` says that there are several processes, and the rest does not fit.
    """
    size = _number(env, "WORLD_SIZE", 1) if "WORLD_SIZE" in env else 1
    if size == 1:
        return Launch()
    names = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if not env.get(name)]:
        raise UserError(
            f"WORLD_SIZE is {size} and {missing[0]} is not set: start with torchrun, which sets "
            "both, or unset WORLD_SIZE to run in one process"
        )
    rank, local_rank = _number(env, "RANK", 0), _number(env, "LOCAL_RANK", 0)
    if rank >= size:
        raise UserError(f"RANK is {rank} and WORLD_SIZE {size}: ranks count from 0")
    local_size = _number(env, "LOCAL_WORLD_SIZE", 1) if "LOCAL_WORLD_SIZE" in env else 1
    return Launch(rank, size, local_rank, max(local_size, local_rank + 1))


def is_first_rank(env: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one that tells the user how the work goes."""
    return env.get("WORLD_SIZE", "1") == "1" or env.get("RANK", "0") == "0"


def rank_timeout(env: Mapping[str, str] = os.environ) -> float:
    """Seconds after which a rank that others wait for counts as hanging.

    Raises:
        UserError: The environment variable holds no positive number.
    """
    text = env.get(TIMEOUT, "")
    try:
        seconds = float(text) if text else _TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise UserError(f"{TIMEOUT} is {text!r}: give seconds, such as {_TIMEOUT_S:.0f}")
    return seconds


def _number(env: Mapping[str, str], name: str, least: int) -> int:
    text = env[name]
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{name} is {text!r}: a whole number of at least {least} is needed")
    return int(text)
