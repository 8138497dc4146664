"""What `benchmarks/gpu.py` makes of its rows; the rows themselves need a GPU, or its dry run."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # whose files import each other

from gpu_bench import Bench
from gpu_goals import goals

STEPS = [
    {"row": "256 prompts, A*-PO", "step s": 20.0, "GiB": 30.0},
    {"row": "256 prompts, GRPO(8)", "step s": 50.0, "GiB": 31.0},
    {"row": "256 prompts, PPO", "step s": 40.0, "GiB": 40.0},
]
UPDATES = [
    {"row": "0.5B, 8192 tokens", "of peak": 0.5},
    {"row": "1.5B, 8192 tokens", "of peak": 0.3},
    {"row": "1.5B, 32768 tokens", "failed": "OutOfMemoryError: "},
    {"row": "1.5B, 8192 tokens, compiled", "of peak": 0.46},
]


def test_goals_are_held_against_the_rows_and_missing_ones_are_not_met():
    record = {"algorithms": STEPS, "update": UPDATES, "torch": "2.13.0"}
    found = {row["goal"]: row for row in goals(record, "1.5B", 256)}
    assert found["a step of GRPO(8) over one of A*-PO"]["measured"] == 2.5
    assert found["memory saved over PPO"]["measured"] == pytest.approx(0.25)
    assert found["stage 1 over bare vLLM"]["measured"] is None
    assert found["update, share of the matrix peak"]["measured"] == 0.3
    assert [name for name, row in found.items() if row["met"]] == [
        "the same of a compiled one",
        "a step of GRPO(8) over one of A*-PO",
    ]
    # The file that a later part goes on with holds the goals so far.
    assert goals(record | {"goals": list(found.values())}, "1.5B", 256) == list(found.values())


def test_a_row_that_fails_or_lacks_a_library_says_so_and_the_others_go_on(tmp_path, capsys):
    def fail():
        raise ValueError("no such thing\nand more")

    bench = Bench(tmp_path / "rows.json", dry=True)
    bench.attempt("failing", fail)
    bench.attempt("without", fail, needs="no_such_library")
    bench.attempt("working", lambda: {"s": 1.5})
    failing, without, working = json.loads((tmp_path / "rows.json").read_text())
    assert failing["failed"] == "ValueError: no such thing"
    assert without == {"row": "without", "skipped": "no_such_library is not installed"}
    assert working["s"] == 1.5
    assert "s 1.5" in capsys.readouterr().out
