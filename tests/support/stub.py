"""Writes `astarpo/api/verbs.pyi`, what editors show: python -m tests.support.stub."""

import subprocess
import sys
from pathlib import Path

from astarpo.api import verbs
from astarpo.api.keywords import stub_of
from astarpo.config import VERBS

PATH = Path(verbs.__file__).with_suffix(".pyi")


def stub() -> str:
    """Its text, formatted as all code is."""
    names = sorted(["load_problems", *(name.replace("-", "_") for name in VERBS)])
    text = stub_of({name: getattr(verbs, name) for name in names})
    words = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PATH), "-"]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    PATH.write_text(stub())
