import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astarpo.grading.grade import grade
from astarpo.tasks import get_task
from astarpo.tasks.problem_set import write_problems
from astarpo.types import UserError

DATA = Path(os.environ.get("ASTARPO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROW = {"question": "How many?", "answer": "She has 9 * 2 = $<<9*2=18>>18.\n#### 1,018"}

TASK = get_task("gsm8k")


def problems(source, split="train"):
    return list(TASK.problems(source=str(source), split=split, size=None, seed=0))


@pytest.mark.parametrize(
    ("response", "gold", "reward", "answer", "status"),
    [
        ("so\n#### 18", "18", 1.0, "18", "ok"),
        ("#### 18.", "18", 1.0, "18", "ok"),
        ("#### 18.0", "18", 1.0, "18.0", "ok"),
        ("#### $1,018", "1018", 1.0, "1,018", "ok"),
        ("####18 dollars", "18", 1.0, "18", "ok"),
        ("####\n18", "18", 1.0, "18", "ok"),
        ("#### -3", "-3", 1.0, "-3", "ok"),
        ("#### 0.50", "0.5", 1.0, "0.50", "ok"),
        ("#### 17", "18", 0.0, "17", "ok"),
        ("#### 18\n#### 20", "18", 0.0, "20", "ok"),
        ("#### 18\nand 99 more", "18", 1.0, "18", "ok"),
        ("She has 18 ducks and 20 eggs.", "20", 1.0, "20", "ok"),
        ("The total is 1,000.", "1000", 1.0, "1,000", "ok"),
        ("no numbers here", "18", 0.0, None, "no_answer"),
        ("", "18", 0.0, None, "no_answer"),
        ("18 ####", "18", 0.0, None, "no_answer"),
        ("#### eighteen", "18", 0.0, "eighteen", "unparsable"),
        ("#### 1/0", "18", 0.0, "1/0", "unparsable"),
        # Written otherwise, the same number.
        ("#### 1 000", "1000", 1.0, "1,000", "ok"),
        ("#### 1{,}000", "1000", 1.0, "1,000", "ok"),
        (r"#### 1\,234\,567.5", "1234567.5", 1.0, "1,234,567.5", "ok"),
        ("#### 12\u202f500 km", "12500", 1.0, "12,500", "ok"),
        (r"#### \frac{1}{2}", "0.5", 1.0, "1/2", "ok"),
        (r"#### -\dfrac12", "-0.5", 1.0, "-1/2", "ok"),
        (r"#### $2\frac{1}{2}$ hours", "2.5", 1.0, "2 1/2", "ok"),
        ("#### 2 1/2", "2.5", 1.0, "2 1/2", "ok"),
        ("#### 2\u00bd", "2.5", 1.0, "2 1/2", "ok"),
        ("#### 10^3", "1000", 1.0, "10^3", "ok"),
        (r"#### 2.5 \times 10^{3}", "2500", 1.0, "2.5 * 10^3", "ok"),
        ("#### 10\u00b3", "1000", 1.0, "10^3", "ok"),
        ("#### 5 million", "5000000", 1.0, "5 million", "ok"),
        ("#### $1.5 Million dollars", "1500000", 1.0, "1.5 Million", "ok"),
        ("#### $5k a year", "5000", 1.0, "5k", "ok"),
        ("#### 1.5M", "1500000", 1.0, "1.5M", "ok"),
        ("#### 5 km", "5", 1.0, "5", "ok"),
        ("#### 5m", "5", 1.0, "5", "ok"),
        ("#### 3 hundred thousand", "300000", 1.0, "3 hundred thousand", "ok"),
        ("#### **18**", "18", 1.0, "18", "ok"),
        (r"#### \(\boxed{18}\).", "18", 1.0, "18", "ok"),
        ("#### 5 + 6 = 11", "11", 1.0, "11", "ok"),
        ("#### x = 3 * 6 = $18 a day", "18", 1.0, "18", "ok"),
        ("#### 5 million = 5,000,000", "5000000", 1.0, "5,000,000", "ok"),
        ("#### 18 m^2", "18", 1.0, "18", "ok"),
        ("#### 18 kg of CO2", "18", 1.0, "18", "ok"),
        ("#### USD18", "18", 1.0, "18", "ok"),
        ("She needs 1 000.", "1000", 1.0, "1,000", "ok"),
        (r"It is \frac{1}{2}.", "0.5", 1.0, "1/2", "ok"),
        ("That makes 5 million.", "5000000", 1.0, "5 million", "ok"),
        ("The area is 18 m^2.", "18", 1.0, "18", "ok"),
        ("So 5 + 6 = 11.", "11", 1.0, "11", "ok"),
    ],
)
def test_judges_numbers(response, gold, reward, answer, status):
    verdict = grade("gsm8k", response, gold)
    assert (verdict.reward, verdict.answer, verdict.status) == (reward, answer, status)


@pytest.mark.parametrize(
    ("response", "golds"),
    [
        ("#### 5 or 6", "5 6 11"),
        ("#### x = 5 or x = 6", "5 6"),
        ("#### 5 or x = 6", "5 6"),
        ("#### x = 5, y = 6", "5 6"),
        ("#### 5, 6", "5 6 56"),
        ("#### 1,2", "1 2 12"),
        ("#### 5 - 6", "5 6 -1"),
        ("#### 5-6 days", "5 6 -1"),
        ("#### 5 million", "5"),
        ("#### 5 million or 5", "5 5000000"),
        ("#### 5k", "5"),
        ("#### 5M", "5"),
        ("#### 5 + 6 = 11", "5 6"),
        ("#### 5 = 6", "5 6"),
        ("#### 5 + 6", "5 6 11"),
        ("#### 18 = 9 * 2", "9 2"),
        ("#### 3 hours 20 minutes", "3 20 200"),
        ("#### 10^3", "10 3"),
        ("#### 2^3", "2 3 23 8"),
        ("#### 10^9999", "10 9999"),
        (r"#### \frac{1}{2}", "1 2 12"),
        ("#### 1 1/2", "1 2"),
        ("#### 2\u00bd", "2"),
        ("#### 10\u00b3", "10 3 103"),
        ("#### 1 000", "1 0"),
        ("#### 100 200 300", "100 200 300"),
        (r"#### \sqrt{25}", "25 5"),
        (r"#### \boxed{5} or \boxed{6}", "5 6"),
        ("#### **5** or **6**", "5 6"),
        ("It is 5 or 6.", "5 6"),
        (r"It is \frac{1}{2}.", "1 2"),
        ("It is 10^3.", "10 3"),
        ("She needs 1 000.", "1 0"),
        ("The area is 18 m^2.", "2"),
        ("That makes 5 million.", "5"),
    ],
)
def test_no_part_of_an_answer_counts(response, golds):
    assert [grade("gsm8k", response, gold).reward for gold in golds.split()] == [0.0] * len(
        golds.split()
    )


def test_reads_the_authors_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps(ROW) + "\n")
    first, second = problems(path)
    assert (first.id, second.id) == ("gsm8k/train/0", "gsm8k/train/1")
    assert first.data_source == "openai/gsm8k"
    assert first.ground_truth == "1018"
    assert first.prompt == (
        {
            "role": "user",
            "content": "How many? Let's think step by step and output the final answer "
            'after "####".',
        },
    )
    assert first.extra == {
        "split": "train",
        "index": 0,
        "question": ROW["question"],
        "answer": ROW["answer"],
        "solution": "She has 9 * 2 = $18.\n#### 1,018",
    }


def test_reads_parquet_of_both_layouts(tmp_path):
    authors = tmp_path / "authors.parquet"
    pq.write_table(pa.Table.from_pylist([ROW]), authors)
    made = problems(authors, "test")
    verl = tmp_path / "verl.parquet"
    write_problems(verl, made)
    assert problems(verl, "test") == made
    with pytest.raises(UserError, match="holds split test, not 'train'"):
        problems(verl, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "a", ', "line 2: not JSON"),
        (b"[" * 100_000, "line 2: not JSON"),
        (b"\xff\xfe", "line 2: not JSON"),
        (b"[1]", "line 2: expected one JSON object"),
        (b'{"question": "a"}', "line 2: expected a text column 'answer', found question"),
        (b'{"question": 3, "answer": "#### 3"}', "line 2: expected a text column 'question'"),
        (b'{"question": "a", "answer": "3"}', "line 2: no number after ####"),
        (b'{"question": "a", "answer": "#### three"}', "line 2: no number after ####"),
    ],
)
def test_bad_rows_are_named(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=message):
        problems(path)


def test_bad_sources(tmp_path):
    with pytest.raises(UserError, match=r"no such file: nowhere/train\.jsonl"):
        problems("nowhere/train.jsonl")
    with pytest.raises(UserError, match="no such file"):
        problems("./nowhere")
    with pytest.raises(UserError, match="is a folder"):
        problems(tmp_path)
    (tmp_path / "x.parquet").write_text("not Parquet")
    with pytest.raises(UserError, match="not a Parquet file"):
        problems(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="has no sizes"):
        list(TASK.problems(source=None, split="train", size=2, seed=0))


def test_the_hub_out_of_reach_is_one_line(monkeypatch):
    import datasets

    def unreachable(name, config, *, split):
        raise ConnectionError(f"Couldn't reach {name} {config} {split}\nlong story")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"openai/gsm8k main train.*--source FILE") as caught:
        list(TASK.problems(source=None, split="train", size=None, seed=0))
    assert "\n" not in str(caught.value)


def test_reads_the_hub(monkeypatch):
    import datasets

    rows = datasets.Dataset.from_list([ROW])
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, *, split: rows)
    (problem,) = problems("someone/gsm8k-copy", "test")
    assert (problem.id, problem.ground_truth) == ("gsm8k/test/0", "1018")


def test_rows_of_another_data_source_are_refused(tmp_path):
    path = tmp_path / "mixed.parquet"
    rows = list(get_task("multiply").problems(source=None, split="test", size=1, seed=0))
    write_problems(path, rows)
    with pytest.raises(UserError, match="of data source 'multiply', not of gsm8k"):
        problems(path, "test")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}")
@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_every_published_answer_is_judged_right(split, count):
    published = problems(DATA / "gsm8k" / f"{split}.jsonl", split)
    assert len(published) == count
    for problem in published:
        for text in (f"#### {problem.ground_truth}", problem.extra["solution"]):
            verdict = TASK.grade(text, problem.ground_truth)
            assert (verdict.reward, verdict.status) == (1.0, "ok"), (problem.id, text)
