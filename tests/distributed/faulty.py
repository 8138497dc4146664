"""A command line of which one rank goes wrong: python -m tests.distributed.faulty HOW RANK WORDS...

`raises`, `hangs`, `other-settings`: in the second rollout, in the second rollout, from the start.
"""

import os
import sys
import time
from typing import Any

from astarpo.cli import main
from astarpo.engines.hf import HFEngine

HOW, RANK, *WORDS = sys.argv[1:]
generate, calls = HFEngine.generate, []


def faulty(self: HFEngine, *args: Any, **more: Any) -> Any:
    """Goes wrong when it is called for the second time."""
    calls.append(1)
    if len(calls) == 2:
        if HOW == "hangs":
            time.sleep(10_000)
        raise RuntimeError("the device is on fire")
    return generate(self, *args, **more)


if os.environ["RANK"] == RANK:
    if HOW == "other-settings":
        WORDS += ["--lr", "0.5"]
    else:
        HFEngine.generate = faulty
sys.exit(main(WORDS))
