"""A user's own rows: every kind of file, column mapping, TRL's and verl's layouts."""

import datetime
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from astarpo.config import DataConfig
from astarpo.grading.grader import Grader
from astarpo.stages.data import data
from astarpo.tasks.own import PROMPT_IS_TEXT
from astarpo.tasks.problem_set import read_problems
from astarpo.types import UserError

ROWS = [
    {"question": "1+1?", "gold": "2", "level": "easy"},
    {"question": "Émile, 2+2?\nSay it", "gold": "4", "level": "easy, really"},
]
MAPPED = {"prompt_column": "question", "answer_column": "gold"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.py").write_text("def f(completions, level, **c): return [len(level[0])]\n")


def imported(source, out="o.parquet", **settings):
    data(DataConfig(task="own", source=str(source), out=out, overwrite=True, **settings))
    return read_problems(Path(out))


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".csv":
        pa_csv.write_csv(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.csv", "mine.parquet", "mine"])
def test_every_kind_of_file_gives_the_same_problems(tmp_path, name):
    problems = imported(write(tmp_path / name, ROWS), reward="gsm8k", split="dev", **MAPPED)
    assert [p.id for p in problems] == ["mine/dev/0", "mine/dev/1"]
    assert [p.data_source for p in problems] == ["gsm8k"] * 2
    assert [p.ground_truth for p in problems] == ["2", "4"]
    assert problems[1].prompt == ({"role": "user", "content": ROWS[1]["question"]},)
    assert problems[1].extra == {
        "split": "dev", "index": 1, "gold": "4", "level": "easy, really", PROMPT_IS_TEXT: True,
    }  # fmt: skip


def test_an_instruction_follows_the_question(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS)
    problems = imported(source, reward="gsm8k", instruction="Box it.", limit=1, **MAPPED)
    assert [p.prompt[-1]["content"] for p in problems] == ["1+1? Box it."]


def test_reward_functions_need_no_answer_and_see_every_column(tmp_path):
    rows = [{"prompt": "Q", "level": None, "when": datetime.date(2025, 1, 2)}, {"prompt": "R"}]
    source = write(tmp_path / "a.parquet", [rows[0] | {"level": "abc"}, *rows])
    problems = imported(source, reward="r.py:f")
    assert [p.ground_truth for p in problems] == [""] * 3
    with Grader(1, 5.0, "r.py:f") as grader:
        verdicts = grader.grade(problems, [""] * 3)
    assert [v.reward for v in verdicts] == [3.0, 0.0, 0.0]
    assert [v.status for v in verdicts] == ["ok", "error", "error"]  # None has no length


def test_trl_conversations_are_kept(tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    source = write(tmp_path / "trl.parquet", [{"prompt": chat, "solution": "2", "id": 7}])
    (problem,) = imported(source, reward="gsm8k", answer_column="solution")
    assert list(problem.prompt) == chat
    assert problem.id == "7"
    assert problem.extra == {"split": "train", "index": 0, "solution": "2", PROMPT_IS_TEXT: False}


def test_verl_files_are_taken_as_they_are(tmp_path, problems_path):
    problems = read_problems(problems_path)
    assert imported(problems_path) == problems
    judged = imported(problems_path, reward="math", limit=2)
    assert [p.data_source for p in judged] == ["math"] * 2
    assert [p.id for p in judged] == [p.id for p in problems[:2]]


def test_numbers_and_lists_as_answers_become_text(tmp_path):
    rows = [{"prompt": "Q", "answer": answer} for answer in (3, 4.0, 0.5)]
    problems = imported(write(tmp_path / "a.parquet", rows), reward="gsm8k")
    assert [p.ground_truth for p in problems] == ["3", "4", "0.5"]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (ROWS, {}, r"line 1: what judges these answers\? Give --reward"),
        (ROWS, {"reward": "gsm8k"}, "no column 'prompt' .found question, gold, level.; name it"),
        (ROWS, {"reward": "gsm8k", "prompt_column": "question"}, "no column 'answer'"),
        (ROWS, {"reward": "r.py:f", "prompt_column": "question", "answer_column": "a"}, "'a'"),
        (ROWS, {"reward": "gsm9k", **MAPPED}, "unknown task or data source 'gsm9k'"),
        (ROWS, {"reward": "r.py:g", **MAPPED}, "has no attribute 'g'"),
        (ROWS, {"reward": "gsm8k", "size": 3, **MAPPED}, "no sizes"),
        ([{"prompt": "Q"}], {"reward": "r.py:f"}, "needs level, which problem a/train/0 lacks"),
        ([{"prompt": " ", "answer": "1"}], {"reward": "math"}, "prompt is empty"),
        ([{"prompt": 5, "answer": "1"}], {"reward": "math"}, "not a list of messages"),
        ([{"prompt": "Q", "answer": None}], {"reward": "math"}, "answer is empty"),
        ([{"prompt": "Q", "answer": "#### 5"}], {"reward": "gsm8k"}, "cannot judge against 1 of"),
        ([{"prompt": "Q", "answer": "\\frac{"}], {"reward": "math"}, "cannot judge 1 of 1 refer"),
        (
            [{"prompt": "Q", "answer": "1", "x": x} for x in ("a", 1)],
            {"reward": "gsm8k"},
            "do not fit one type",
        ),
        ([{"prompt": "Q", "answer": "1", "x": {}}], {"reward": "gsm8k"}, "do not fit one type"),
        ([{"prompt": "Q", "answer": "1", "id": 1}] * 2, {"reward": "gsm8k"}, "have the id '1'"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, rows, settings, message):
    source = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=message) as caught:
        imported(source, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,gold\nq,1\nq\n", "line 3: has another number of cells"),
        ("question;gold\nq;1\nq\n", "line 3: has another number of cells"),
        ("question,gold\nq,1,2\n", "line 2: has another number of cells"),
        ('question,gold\n"q,1\n', "not CSV"),
    ],
)
def test_broken_csv_is_named_by_line(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        imported(tmp_path / "a.csv", reward="gsm8k", **MAPPED)


def test_a_prompt_is_made_of_columns(tmp_path):
    rows = [{"Body": "Al has 2 pens.", "Question": "How many?", "Answer": 2.0}]
    source = write(tmp_path / "svamp.jsonl", rows)
    columns = {"prompt_template": "{Body} {Question}", "answer_column": "Answer"}
    (problem,) = imported(source, reward="gsm8k", **columns)
    assert problem.prompt[-1]["content"] == "Al has 2 pens. How many?"
    assert problem.ground_truth == "2"
    assert problem.extra["Body"] == "Al has 2 pens."
    with pytest.raises(UserError, match="both make the prompt"):
        imported(source, reward="gsm8k", prompt_column="Body", **columns)
    with pytest.raises(UserError, match=r"no column 'body'.*did you mean Body\?"):
        imported(source, reward="gsm8k", prompt_template="{body}", answer_column="Answer")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_json_array_is_read(tmp_path, mark):
    (tmp_path / "a.json").write_bytes(mark + json.dumps(ROWS, indent=2).encode())
    problems = imported(tmp_path / "a.json", reward="gsm8k", **MAPPED)
    assert [p.ground_truth for p in problems] == ["2", "4"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'question;gold\n"1;1, both?";2\nb;4\n'),
        ("a.csv", '\ufeffquestion;gold\n"1;1, both?";2\nb;4\n'),
        ("a.tsv", "question\tgold\n1;1, both?\t2\nb\t4\n"),
        ("a.csv", 'question,gold\n"1;1, both?",2\nb,4\n'),
    ],
)
def test_cells_are_parted_as_the_first_line_is(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    problems = imported(tmp_path / name, reward="gsm8k", **MAPPED)
    assert problems[0].prompt[-1]["content"] == "1;1, both?"
    assert [p.ground_truth for p in problems] == ["2", "4"]


def test_a_cell_of_five_megabytes_is_read_and_cut_on_the_screen(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("prompt,answer\n" + "word " * 1_000_000 + ",2\n")
    with caplog.at_level("INFO", logger="astarpo"):
        (problem,) = imported(tmp_path / "a.csv", reward="gsm8k")
    assert len(problem.prompt[-1]["content"]) == 5_000_000
    assert "more characters]" in caplog.text
    assert len(caplog.text) < 1000


MIXED = {
    "a.jsonl": b"""{"question": "Q1", "gold": "1"}
{"question": "Q2", "gold":
7
{"question": "Q3"}
{"question": " ", "gold": "1"}
{"question": "Q4", "gold": "four"}
{"question": "Q5", "gold": "5"}
""",
    "a.csv": b"question;gold\nQ1;1\nQ2\n\xe9;2\nQ3;;\n;4\nQ4;four\nQ5;5\n",
    "a.json": b'[{"question": "Q1", "gold": "1"}, 7, {"question": null, "gold": "1"}, '
    b'{"gold": "3"}, {"question": "Q4", "gold": null}, {"question": "Q4", "gold": "four"}, '
    b'{"question": "Q5", "gold": "5"}]',
}


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_cannot_be_read_are_left_out_and_counted(tmp_path, name, caplog):
    (tmp_path / name).write_bytes(MIXED[name])
    with pytest.raises(UserError):
        imported(tmp_path / name, reward="gsm8k", **MAPPED)
    problems = imported(tmp_path / name, reward="gsm8k", skip_unreadable=True, **MAPPED)
    assert [p.prompt[-1]["content"] for p in problems] == ["Q1", "Q5"]
    assert "left out: 5 rows that cannot be read or judged; the first: " in caplog.text
    assert f"{name}, " in caplog.text


def test_answers_that_no_verifier_accepts_are_left_out_too(tmp_path, caplog):
    rows = [{"prompt": f"Q{i}", "answer": gold} for i, gold in enumerate(["1", "\\frac{", "2"])]
    source = write(tmp_path / "a.jsonl", rows)
    problems = imported(source, reward="math", skip_unreadable=True)
    assert [p.ground_truth for p in problems] == ["1", "2"]
    assert "left out: 1 rows" in caplog.text
    with pytest.raises(UserError, match="no problem of split 'train' is left"):
        imported(write(tmp_path / "b.jsonl", rows[1:2]), reward="gsm8k", skip_unreadable=True)


def test_a_tasks_problems_can_have_another_reward(tmp_path):
    (tmp_path / "g.py").write_text("def f(completions, ground_truth, **c): return [0.5]\n")
    data(DataConfig(task="multiply", out=tmp_path / "o.parquet", limit=3, reward="g.py:f"))
    assert {p.data_source for p in read_problems(tmp_path / "o.parquet")} == {"reward:g.py:f"}


def test_column_flags_are_for_own_problems(tmp_path):
    with pytest.raises(UserError, match="are for own problems"):
        data(DataConfig(task="multiply", out=tmp_path / "o.parquet", prompt_column="q"))
