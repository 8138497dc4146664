"""Which estimator V* comes from is said wherever it is not the one the table was finished with."""

import logging
import shutil

import pyarrow.parquet as pq
import pytest

from astarpo import ValueTable
from astarpo.cli import parse
from astarpo.tasks.problem_set import read_problems
from astarpo.training.inputs import open_inputs
from astarpo.values.shrinkage import Shrunk
from astarpo.verbs.export import export

OTHER = "V* is by Plugin(beta1=0.5); {} has it by Shrunk(beta1=2.0)"
REMEDY = ": for the same give --estimator shrunk --beta1 2.0"


@pytest.fixture
def shrunk_table(tmp_path, table_path, problems):
    path = tmp_path / "values"
    shutil.copytree(table_path, path)
    table = ValueTable(path)
    table.write_values(problems, table.values(problems, Shrunk(2.0)))
    return path


@pytest.fixture
def said(caplog):
    """What was logged of V* by what is called, and whether as a warning."""
    caplog.set_level(logging.INFO, "astarpo")

    def call(function, words) -> list[tuple[str, str]]:
        caplog.clear()
        function(parse(list(map(str, words)))[0])
        of_values = [r for r in caplog.records if r.message.startswith("V* is by")]
        return [(r.levelname, r.message) for r in of_values]

    return call


def test_training_says_it(said, shrunk_table, policy_path, problems_path, tmp_path):
    words = ["train", "--model", policy_path, "--problems", problems_path]
    words += ["--values", shrunk_table, "--out", tmp_path / "run"]
    told = OTHER.format(shrunk_table / "values.parquet")
    assert said(open_inputs, words) == [("WARNING", told + REMEDY)]
    assert said(open_inputs, [*words, *REMEDY.split()[-4:]]) == []  # what it says to do
    asked_for = [*words, "--beta1", "0.5"]
    assert said(open_inputs, asked_for) == [("INFO", told)]
    for algorithm in ("grpo", "spo"):  # which do not take V* from the table
        assert said(open_inputs, [*words, "--algorithm", algorithm]) == []


def test_an_export_says_it(said, shrunk_table, problems_path, tmp_path):
    words = ["export", shrunk_table, "--problems", problems_path, "--overwrite"]
    words += ["--out", tmp_path / "out.parquet", "--format"]
    told = OTHER.format(shrunk_table / "values.parquet")
    assert said(export, [*words, "trl"]) == [("WARNING", told + REMEDY)]
    assert said(export, [*words, "apo"]) == []  # has samples, and no V*
    assert said(export, [*words, "trl", *REMEDY.split()[-4:]]) == []
    written = pq.read_table(tmp_path / "out.parquet")["v_star"].to_pylist()
    expected = ValueTable(shrunk_table).values(read_problems(problems_path)).v_star_P
    assert written == pytest.approx(expected.tolist())


def test_of_a_table_that_does_not_say_nothing_is_said(said, shrunk_table, problems_path, tmp_path):
    words = ["export", shrunk_table, "--problems", problems_path, "--overwrite"]
    words += ["--out", tmp_path / "out.parquet"]
    path = shrunk_table / "values.parquet"
    columns = pq.read_table(path)
    pq.write_table(columns.drop(["estimator"]), path)  # as version 0.1.0 wrote it
    assert said(export, words) == []
    pq.write_table(
        columns.set_column(5, "estimator", [["Pooled(weight=1)"] * len(columns)]), path
    )  # an estimator of the user's own, which no flag names
    ((level, message),) = said(export, words)
    assert level == "WARNING"
    assert message.endswith("has it by Pooled(weight=1)")


def test_the_tables_own_estimator_is_not_worth_a_word(said, table_path, problems_path, tmp_path):
    words = ["export", table_path, "--problems", problems_path, "--out", tmp_path / "out.parquet"]
    assert said(export, words) == []
