"""Starts a module on several ranks of this machine."""

import os
import subprocess
import sys


def torchrun(num_ranks: int, module: str, *words: object) -> None:
    """Runs `python -m module words` on so many gloo ranks of one thread each; all must succeed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    done = subprocess.run(
        [*command, str(num_ranks), "-m", module, *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
