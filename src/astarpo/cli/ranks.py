"""The command line as one rank of several, which torchrun has started."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from astarpo.config import VERBS
from astarpo.runtime.connection import is_told_elsewhere
from astarpo.runtime.distributed import open_ranks
from astarpo.runtime.launch import is_first_rank, read_launch
from astarpo.runtime.peers import PeerLost
from astarpo.types import UserError

Settle = Callable[[BaseException], bool]
"""Tells the other ranks of an error that ends this one; says whether this one tells the user."""

_SHARED = ("demo", "run", "data", "warm-start", "estimate", "train", "evaluate")
"""The verbs that several ranks can do. Problems and a warm start are made by the first one."""

_FAILED = 1


def refuse_ranks(arguments: Sequence[str]) -> None:
    """Refuses a verb that one process does.

    Raises:
        UserError: It is not one of those that ranks share.
    """
    if arguments and arguments[0] in VERBS and arguments[0] not in _SHARED:
        raise UserError(
            f"{arguments[0]}: one process does this: leave torchrun out, which is for "
            f"{', '.join(_SHARED)}"
        )


def run_as_rank(answer: Callable[[Settle], int]) -> int:
    """Does what the command line asks for, with the other ranks.

    Args:
        answer: Does it, and returns the exit status.
    """
    if not is_first_rank():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        with open_ranks() as where:

            def settle(error: BaseException) -> bool:
                where.settle(error)
                return not is_told_elsewhere(error)

            try:
                return answer(settle)
            except Exception as error:
                # Told here, where the other ranks still wait, and torchrun has nothing to end.
                if settle(error):
                    who = f"astarpo: rank {where.rank}: "
                    known = isinstance(error, PeerLost)
                    sys.stderr.write(f"{who}{error if known else traceback.format_exc()}\n")
                return _FAILED
    except UserError as error:  # The ranks have not come together.
        print(f"astarpo: rank {read_launch().rank}: {error}", file=sys.stderr)
        return 2
