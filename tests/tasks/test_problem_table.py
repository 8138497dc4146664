"""Problem sets as columns: the same problems as eager objects, and none made for nothing."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.tasks import problem_set, problem_table
from astarpo.tasks.problem_set import read_problems, to_row, write_problems, write_rows
from astarpo.tasks.problem_table import ground_truths
from astarpo.types import Problem, UserError
from astarpo.values.known import digests_of, ids_of
from tests.conftest import digit_problems

MANY = 20_000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file of many problems, and the problems."""
    path = tmp_path_factory.mktemp("many") / "p.parquet"
    problems = digit_problems(MANY)
    write_problems(path, problems)
    return path, problems


@pytest.fixture
def made(monkeypatch):
    """Counts the problems that are made."""
    counts = Counter()
    make = problem_set._problem

    def counted(*row):
        counts["made"] += 1
        return make(*row)

    monkeypatch.setattr(problem_set, "_problem", counted)
    return counts


def test_problems_are_the_same_one_by_one_in_slices_and_in_any_order(many, monkeypatch):
    path, problems = many
    monkeypatch.setattr(problem_set, "_BATCH_ROWS", 3000)  # rows of several batches
    read = read_problems(path)
    assert list(read) == problems
    assert read == problems
    assert problems == read
    assert read != problems[:-1]
    assert (read[0], read[-1], read[2999], read[3000]) == tuple(
        problems[i] for i in (0, -1, 2999, 3000)
    )
    with pytest.raises(IndexError):
        read[MANY]
    assert list(read[2990:3010:3]) == problems[2990:3010:3]
    assert list(read[10:20][5:]) == problems[15:20]
    order = np.random.default_rng(0).permutation(MANY)[:5000]
    assert list(read.take(order)) == [problems[i] for i in order]
    assert read.take(order)[7] == problems[order[7]]
    is_third = np.arange(MANY) % 3 == 0
    assert list(read.take(is_third)) == problems[::3]
    assert read.take(order).ids.to_pylist() == [problems[i].id for i in order]


def test_what_is_wanted_of_all_is_had_as_columns(many, made):
    path, problems = many
    read = read_problems(path)
    assert ids_of(read).to_pylist() == [problem.id for problem in problems]
    assert ground_truths(read) == ground_truths(problems) == {"gsm8k": {"0", "1", "2"}}
    assert verifier_fingerprint(read) == verifier_fingerprint(problems)
    assert read[:100][50:].ids.to_pylist() == [problem.id for problem in problems[50:100]]
    assert made["made"] == 0
    assert digests_of(read).to_pylist() == [problem.digest for problem in problems]
    chosen = read.take([5, 3, 5])
    assert digests_of(chosen).to_pylist() == [problems[i].digest for i in (5, 3, 5)]
    assert made["made"] == MANY  # once each, though digests were asked for twice
    assert read[17] == problems[17]
    assert made["made"] == MANY + 1


def test_a_file_of_other_origin_is_read_row_by_row_and_then_kept_as_columns(tmp_path):
    rows = [to_row(problem) for problem in digit_problems(4)]
    for row in rows:
        del row["extra_info"]["id"]
    rows[2]["reward_model"]["ground_truth"] = "7"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "verl.parquet")
    read = read_problems(tmp_path / "verl.parquet")
    assert read.ids.to_pylist() == [f"gsm8k/train/{i}" for i in range(4)]
    assert [problem.ground_truth for problem in read] == ["0", "1", "7", "0"]
    assert ground_truths(read) == {"gsm8k": {"0", "1", "7"}}


def test_a_row_that_is_no_problem_is_named_when_the_file_is_read(tmp_path):
    rows = [to_row(problem) for problem in digit_problems(3)]
    rows[1]["prompt"] = []
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="row 1: prompt is not a list of messages"):
        read_problems(tmp_path / "p.parquet")


def test_reference_answers_that_nothing_can_judge_against_are_counted_and_named(tmp_path):
    problems = [Problem(f"p/{i}", "gsm8k", digit_problems(1)[0].prompt, t)
                for i, t in enumerate(["1", "none", "2", "none"])]  # fmt: skip
    write_problems(tmp_path / "p.parquet", problems)
    for each in (problems, read_problems(tmp_path / "p.parquet")):
        with pytest.raises(UserError, match=r"2 of 4 reference answers, the first 'none' of p/1"):
            verifier_fingerprint(each)


def test_rows_are_written_some_at_a_time_as_they_would_be_at_once(tmp_path, monkeypatch):
    facts = [{"a": 1}] * 6 + [{"a": 2, "b": "x"}] * 3
    rows = [{"id": i, "score": None if i < 4 else i / 2, "facts": facts[i]} for i in range(9)]
    write_rows(tmp_path / "whole.parquet", rows)
    monkeypatch.setattr(problem_set, "_CHUNK_ROWS", 3)
    write_rows(tmp_path / "parts.parquet", iter(rows))
    whole, parts = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    assert parts.schema.equals(whole.schema)
    assert parts.to_pylist() == whole.to_pylist()
    with pytest.raises(UserError, match="a column's values do not fit one type"):
        write_rows(tmp_path / "unfit.parquet", [{"a": 1}] * 3 + [{"a": "one"}])


def test_iterating_holds_few_problems_at_a_time(many, monkeypatch):
    monkeypatch.setattr(problem_table, "_AT_A_TIME", 7)
    path, problems = many
    assert list(read_problems(path, limit=50)) == problems[:50]
