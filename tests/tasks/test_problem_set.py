import json
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astarpo.runtime.files import DamagedFileError
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import Message, Problem, UserError
from tests.conftest import flipped

PROMPT = [{"role": "user", "content": "How many?"}]


def problem(identifier, **extra):
    return Problem(
        id=identifier,
        data_source="openai/gsm8k",
        prompt=(Message(role="system", content="Be brief."), Message(role="user", content="1+1?")),
        ground_truth="2",
        extra=extra,
    )


def write_rows(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def row(ground_truth="2", prompt=PROMPT, source="openai/gsm8k", **extra):
    return {
        "data_source": source,
        "prompt": prompt,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": extra or {"split": "train"},
    }


def test_what_is_written_is_read(tmp_path):
    problems = [
        problem("a", split="train", index=0, solution="1+1=2", level=None),
        problem("b", split="train", index=1, solution=None, level="Level 1"),
    ]
    path = tmp_path / "new" / "set.parquet"
    write_problems(path, problems)
    assert read_problems(path) == problems
    assert read_problems(path, limit=1) == problems[:1]
    assert [file.name for file in path.parent.iterdir()] == ["set.parquet"]


def test_the_schema_is_verls(tmp_path):
    path = tmp_path / "set.parquet"
    write_problems(path, [problem("a", split="test", index=3)])
    (written,) = pq.read_table(path).to_pylist()
    assert written == {
        "data_source": "openai/gsm8k",
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1+1?"},
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"split": "test", "index": 3, "id": "a"},
    }


def test_files_made_for_verl_get_ids(tmp_path):
    rows = [row(split="train", index=5), row(split="train", index=6), row(split="train", index=5)]
    rows += [row(split="train", index=None)]
    path = write_rows(tmp_path / "verl.parquet", rows)
    ids = [p.id for p in read_problems(path)]
    assert ids == [
        "openai/gsm8k/train/5",
        "openai/gsm8k/train/6",
        "openai/gsm8k/train/row-2",
        "openai/gsm8k/train/row-3",
    ]
    assert [p.id for p in read_problems(path, limit=2)] == ids[:2]


def test_files_made_for_apo_are_read(tmp_path):
    numbers = {"target": 24, "numbers": [3, 8, 1]}
    path = write_rows(
        tmp_path / "countdown.parquet",
        [row(numbers, source="countdown", index=0) | {"response_0": "x", "eval_0": 1.0}],
    )
    (read,) = read_problems(path)
    assert json.loads(read.ground_truth) == numbers
    path = write_rows(tmp_path / "multiply.parquet", [row(4042, source="multiply", index=0)])
    assert read_problems(path)[0].ground_truth == "4042"


def test_no_extra_info_at_all(tmp_path):
    bare = {key: value for key, value in row().items() if key not in ("extra_info", "ability")}
    (read,) = read_problems(write_rows(tmp_path / "bare.parquet", [bare]))
    assert (read.id, read.ability) == ("openai/gsm8k/unknown/row-0", "math")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(id="a"), row(id="b"), row(id="a")], "two problems have the id 'a'"),
        ([{"question": "a"}], "missing column data_source, prompt, reward_model; found question"),
        ([row(prompt="How many?")], "row 0: prompt is not a list of messages"),
        ([row(prompt=[])], "row 0: prompt is not a list of messages"),
        ([row(prompt=[{"role": "user", "content": None}])], "prompt is not a list of messages"),
        ([row(), row(ground_truth=None)], "row 1: reward_model has no ground_truth"),
        ([row(source=None)], "row 0: data_source is not text"),
    ],
)
def test_unfit_files_are_refused_in_one_line(tmp_path, rows, message):
    path = write_rows(tmp_path / "unfit.parquet", rows)
    with pytest.raises(UserError, match=message) as caught:
        read_problems(path)
    assert "\n" not in str(caught.value)


def test_missing_empty_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_problems(tmp_path / "none.parquet")
    write_problems(tmp_path / "set.parquet", [problem("a", split="train")])
    table = pq.read_table(tmp_path / "set.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="holds no problems"):
        read_problems(tmp_path / "empty.parquet")
    content = (tmp_path / "set.parquet").read_bytes()
    for broken in (b"", b"PAR1", content[:-20], content[50:]):
        (tmp_path / "broken.parquet").write_bytes(broken)
        with pytest.raises(UserError, match=r"broken\.parquet: damaged"):
            read_problems(tmp_path / "broken.parquet")


def test_unfit_sets_are_not_written(tmp_path):
    path = tmp_path / "set.parquet"
    with pytest.raises(UserError, match="no problems"):
        write_problems(path, [])
    with pytest.raises(UserError, match="two problems have the id 'a'"):
        write_problems(path, [problem("a"), problem("a")])
    with pytest.raises(UserError, match="not Unicode"):
        write_problems(path, [problem("\ud800")])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="cannot write"):
        write_problems(tmp_path, [problem("a")])


def test_a_flipped_byte_is_seen_or_changes_nothing(tmp_path):
    path = tmp_path / "set.parquet"
    problems = [problem("a", split="train"), problem("b", split="train")]
    write_problems(path, problems)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(flipped(whole, place))
        with suppress(DamagedFileError):
            assert read_problems(path) == problems
