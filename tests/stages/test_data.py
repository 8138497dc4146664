import json
import logging

import pytest

from astarpo.config import DataConfig
from astarpo.stages.data import DEFAULT_NUM_MADE, data
from astarpo.tasks.problem_set import read_problems
from astarpo.types import UserError


def test_made_problems(tmp_path, caplog):
    out = tmp_path / "multiply.parquet"
    with caplog.at_level(logging.INFO, logger="astarpo"):
        assert data(DataConfig(task="multiply", out=out, limit=20, seed=3)) == out
    assert len(read_problems(out)) == 20
    assert "20 problems of multiply, split train" in caplog.text
    assert "Compute" in caplog.text


def test_made_problems_have_an_end_without_a_limit(tmp_path):
    out = tmp_path / "arithmetic.parquet"
    data(DataConfig(task="arithmetic", out=out))
    assert len(read_problems(out)) == DEFAULT_NUM_MADE


def test_published_problems(tmp_path):
    source = tmp_path / "train.jsonl"
    rows = [{"question": f"Question {n}?", "answer": f"#### {n}"} for n in range(5)]
    source.write_text("\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "gsm8k.parquet"
    data(DataConfig(task="openai/gsm8k", source=str(source), out=out, split="test"))
    problems = read_problems(out)
    assert [p.ground_truth for p in problems] == ["0", "1", "2", "3", "4"]
    assert problems[2].id == "gsm8k/test/2"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "maths"}, "unknown task"),
        ({"task": "multiply", "split": "dev"}, "not 'dev'"),
        ({"task": "gsm8k", "source": "none.jsonl"}, "no such file"),
    ],
)
def test_mistakes_write_nothing(tmp_path, settings, message):
    out = tmp_path / "out.parquet"
    with pytest.raises(UserError, match=message):
        data(DataConfig(out=out, **settings))
    assert not out.exists()
