import dataclasses
import json
import math
import resource
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astarpo import ValueTable
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.grading.grader import Grader
from astarpo.runtime.files import DamagedFileError
from astarpo.types import UserError
from astarpo.values.choice import estimator_of
from astarpo.values.derived import PromptLengths, read_lengths
from astarpo.values.estimators import (
    Estimator,
    Plugin,
    ValueEstimate,
    problem_values,
    value_estimates,
)
from astarpo.values.known import different, ids_of, places
from astarpo.values.manifest import shard_engines
from astarpo.values.rejudge import rejudge
from astarpo.values.shards import Sample, read_shard
from astarpo.values.summary import column_counts
from tests.conftest import digit_problems, flipped

FINGERPRINT = {"weights": "abc", "temperature": 1.0, "verifier of gsm8k": "1"}


def sample(problem, number, reward) -> Sample:
    return Sample(
        problem_id=problem.id,
        problem_digest=problem.digest,
        sample=number,
        token_ids=(1, 2, 256),
        text="#### 1",
        answer="1",
        reward=reward,
        status="ok",
        num_tokens=3,
        finish_reason="stop",
    )


def finish(table, problems, num_samples, beta):
    table.write_values(problems, table.values(problems, Plugin(beta), num_samples))


@pytest.fixture
def table(tmp_path):
    problems = digit_problems(3)
    table = ValueTable.start(tmp_path / "t", FINGERPRINT, {})
    table.append([sample(problems[1], n, float(n < 3)) for n in range(8)])
    table.append([sample(problems[0], n, 0.0) for n in range(8)])
    table.append([sample(problems[2], n, 1.0) for n in range(8)])
    finish(table, problems, 8, 0.5)
    return table


def test_values_follow_from_rewards(table):
    rows = pq.read_table(table.path / "values.parquet").to_pylist()
    assert [r["problem_id"] for r in rows] == [p.id for p in digit_problems(3)]
    assert [r["n"] for r in rows] == [8, 8, 8]
    assert [r["mean_reward"] for r in rows] == [0, 3 / 8, 1]
    assert [r["v_star"] for r in rows] == pytest.approx([0, 0.61128, 1], abs=6e-6)
    assert rows[1]["v_star_se"] > 0


def test_beta_and_n_change_without_new_samples(table):
    problems = digit_problems(3)
    assert table.rewards(problems, 4).mean(axis=1).tolist() == [0, 0.75, 1]
    finish(table, problems, 8, math.inf)
    rows = pq.read_table(table.path / "values.parquet").to_pylist()
    assert [r["v_star"] for r in rows] == [0, 3 / 8, 1]


def test_missing_samples(table):
    problems = digit_problems(4)
    assert table.missing_samples(problems, 8) == [[], [], [], list(range(8))]
    assert table.missing_samples(problems[:1], 10) == [[8, 9]]
    assert table.samples(["status", "num_tokens", "reward"]).num_rows == 24
    with pytest.raises(UserError, match="1 of 4 problems lack samples"):
        table.rewards(problems)


def test_other_fingerprint_is_refused_with_the_difference_named(table):
    with pytest.raises(UserError, match=r"temperature is 1.0 in the table and 0.5 here"):
        ValueTable.start(table.path, FINGERPRINT | {"temperature": 0.5}, {})
    ValueTable.start(table.path, FINGERPRINT | {"verifier of math": "2"}, {})
    assert ValueTable(table.path).setting("verifier of math") == "2"


def test_changed_problem_is_refused(table):
    changed = dataclasses.replace(digit_problems(1)[0], ground_truth="9")
    with pytest.raises(UserError, match="another text or answer"):
        table.rewards([changed])


def test_not_a_table(tmp_path):
    with pytest.raises(UserError, match="no value table here"):
        ValueTable(tmp_path)
    (tmp_path / "file.txt").write_text("precious")
    with pytest.raises(UserError, match="not a value table"):
        ValueTable.start(tmp_path, FINGERPRINT, {})
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        ValueTable(tmp_path)
    for text in ("{", "[]", '{"name": "of another program"}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"no samples here; give another --out"):
            ValueTable.start(tmp_path, FINGERPRINT, {})


def test_a_first_try_that_made_no_sample_binds_to_nothing(tmp_path):
    ValueTable.start(tmp_path / "t", FINGERPRINT, {"seconds": {"generate": 1.0}})
    table = ValueTable.start(tmp_path / "t", FINGERPRINT | {"temperature": 0.5}, {})
    assert table.setting("temperature") == 0.5
    assert "seconds" not in table.manifest


def test_an_unfinished_table_is_refused_in_one_line(tmp_path):
    table = ValueTable.start(tmp_path / "t", FINGERPRINT, {})
    for ask in (lambda: table.max_prompt_tokens, lambda: table.rewards(digit_problems(1))):
        with pytest.raises(UserError, match="unfinished; run the same astarpo estimate again"):
            ask()


def shards(table):
    return {path.name: path.read_bytes() for path in table.path.glob("samples-*.parquet")}


def fill(path, problems):
    """What estimate does: the samples that are missing, a shard for each problem."""
    table = ValueTable.start(path, FINGERPRINT, {})
    for problem, numbers in zip(problems, table.missing_samples(problems, 8), strict=True):
        if numbers:
            table.append([sample(problem, n, float(n < 3)) for n in numbers])
    finish(table, problems, 8, 0.5)
    return table


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "empty", "lose the digest"])
def test_a_damaged_shard_comes_back_to_the_byte(tmp_path, damage, caplog):
    problems = digit_problems(3)
    table = fill(tmp_path / "t", problems)
    before = shards(table)
    shard = table.path / sorted(before)[1]
    content = before[shard.name]
    if damage == "lose the digest":
        pq.write_table(pq.read_table(shard), shard)
    elif damage == "delete":
        shard.unlink()
    else:
        kinds = {"flip": flipped(content, 500), "cut": content[:-9], "empty": b""}
        shard.write_bytes(kinds[damage])
    said = "lack samples" if damage == "delete" else f"{shard.name}: damaged.* run the same astarpo"
    with pytest.raises(UserError, match=said):
        ValueTable(table.path).rewards(problems)
    assert shards(fill(table.path, problems)) == before
    warned = f"{shard}: damaged" in caplog.text
    assert warned == (damage != "delete")
    assert (table.path / f"damaged-{shard.name}").exists() == warned
    assert (ValueTable(table.path).rewards(problems).sum(axis=1) == 3).all()


def test_every_flipped_byte_of_a_shard_is_seen(tmp_path):
    """Each file is read whole before it is used, so that a sample of the bytes tells of all."""
    table = fill(tmp_path / "t", digit_problems(1))
    (shard,) = table.path.glob("samples-*.parquet")
    content = shard.read_bytes()
    for place in [*range(0, len(content), 97), *range(len(content) - 12, len(content))]:
        shard.write_bytes(flipped(content, place))
        with pytest.raises(DamagedFileError, match=shard.name):
            ValueTable(table.path).samples()


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_manifest_is_made_again(tmp_path, damage, caplog):
    problems = digit_problems(2)
    table = fill(tmp_path / "t", problems)
    path = table.path / "manifest.json"
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        place = content.index(b"abc")  # the digest of the weights
        path.write_bytes(flipped(content, place) if damage == "flip" else content[:place])
    said = (
        "no value table here" if damage == "delete" else "damaged.* run the same astarpo estimate"
    )
    with pytest.raises(UserError, match=said):
        ValueTable(table.path)
    with pytest.raises(UserError, match="weights is 'abc' in the table and 'abd' here"):
        ValueTable.start(table.path, FINGERPRINT | {"weights": "abd"}, {})
    assert fill(table.path, problems).manifest == table.manifest
    assert "made again from the shards" in caplog.text


def test_what_strayed_in_is_no_part_of_the_table(tmp_path):
    problems = digit_problems(2)
    table = fill(tmp_path / "t", problems[:1])
    for name in ("samples-copy.parquet", "samples-00000 (1).parquet", "samples-0.parquet"):
        (table.path / name).write_bytes(b"not one of ours")
    assert len(ValueTable(table.path).samples()) == 8
    other = ValueTable.start(tmp_path / "o", FINGERPRINT | {"weights": "other"}, {})
    other.append([sample(problems[1], n, 1.0) for n in range(8)])
    (stray,) = shards(other)
    (other.path / stray).rename(table.path / stray)
    with pytest.raises(UserError, match=f"{stray}: does not belong .*weights is 'other'"):
        ValueTable(table.path).samples()
    (table.path / stray).unlink()
    assert len(ValueTable(table.path).samples()) == 8


def test_a_full_disk_is_one_line_and_costs_nothing_that_was_finished(tmp_path):
    problems = digit_problems(2)
    whole = shards(fill(tmp_path / "whole", problems))
    fill(tmp_path / "t", problems[:1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*samples-.*: File too large"):
            fill(tmp_path / "t", problems)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert shards(ValueTable(tmp_path / "t")).items() < whole.items()
    assert not list((tmp_path / "t").glob(".unfinished-*"))
    assert shards(fill(tmp_path / "t", problems)) == whole


def test_a_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    fill(tmp_path / "link", digit_problems(1))
    assert ValueTable(tmp_path / "disk").rewards(digit_problems(1)).sum() == 3
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="cannot write"):
        fill(tmp_path / "nowhere", digit_problems(1))


@pytest.fixture
def old_table(tmp_path):
    """A table as version 0.1.0 wrote it: no digests, shards numbered."""
    table = fill(tmp_path / "old", digit_problems(2))
    for number, shard in enumerate(sorted(table.path.glob("samples-*.parquet"))):
        rows = pq.read_table(shard).replace_schema_metadata()
        shard.unlink()
        pq.write_table(rows, table.path / f"samples-{number:05d}.parquet")
    manifest = json.dumps(table.manifest | {"format": 1})
    (table.path / "manifest.json").write_text(manifest)
    return table.path


def test_tables_of_version_0_1_0_are_read_extended_and_healed(old_table, caplog):
    problems = digit_problems(3)
    assert ValueTable(old_table).rewards(problems[:2]).sum() == 6
    table = fill(old_table, problems)
    names = {file.name[:-8] for file in old_table.glob("samples-*")}
    assert {"samples-00000", "samples-00001"} < names
    assert ValueTable(old_table).rewards(problems).sum() == 9
    shard = old_table / "samples-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    assert fill(old_table, problems).rewards(problems).sum() == 9
    assert f"{shard}: damaged" in caplog.text
    (old_table / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="does not tell what is in it: restore the manifest"):
        fill(old_table, problems)
    assert table.manifest["format"] == 2


def test_problems_may_have_unequally_many_samples():
    nan = math.nan
    found = problem_values([[1, 0, nan, nan], [0, 1, 1, 0], [nan, 1, nan, nan]], Plugin(0.5))
    assert found.num_samples_P.tolist() == [2, 4, 1]
    for i, rewards in enumerate(([1, 0], [0, 1, 1, 0], [1])):
        value, error = value_estimates(rewards, 0.5)
        assert found.v_star_P[i] == value
        assert found.standard_error_P[i] == pytest.approx(float(error), nan_ok=True)
    assert found.mean_P.tolist() == [0.5, 0.5, 1]
    assert found.lowest_P.tolist() == [0, 0, 1]
    assert found.highest_P.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="need a sample a problem"):
        problem_values([[1.0], [nan]], Plugin(0.5))


def test_an_unfinished_problem_is_refused_and_named(table):
    problems = digit_problems(3)
    table.append([sample(problems[0], n, 0.0) for n in range(8, 10)])
    with pytest.raises(UserError, match="2 of 3 problems lack samples out of 10"):
        table.values(problems, Plugin(0.5), 10)
    assert table.values(problems, Plugin(0.5)).num_samples_P.tolist() == [8, 8, 8]


def test_values_name_their_estimator(table):
    rows = pq.read_table(table.path / "values.parquet").to_pylist()
    assert {row["estimator"] for row in rows} == {"Plugin(beta1=0.5)"}
    assert [str(estimator_of({"beta1": given})) for given in (0.25, "Infinity")] == [
        "Plugin(beta1=0.25)", "Plugin(beta1=inf)",
    ]  # fmt: skip


def test_another_estimator_needs_no_change_elsewhere(table):
    @dataclasses.dataclass(frozen=True)
    class BestOfN(Estimator):
        quantile: float

        def estimate(self, rewards_PN):
            best_P = np.nanquantile(rewards_PN, self.quantile, axis=1)
            return ValueEstimate(best_P, np.full(len(rewards_PN), np.nan))

    problems = digit_problems(3)
    table.write_values(problems, table.values(problems, BestOfN(1.0), 4))
    rows = pq.read_table(table.path / "values.parquet").to_pylist()
    assert [row["v_star"] for row in rows] == [0, 1, 1]
    assert all(row["estimator"].endswith("BestOfN(quantile=1.0)") for row in rows)


def test_two_writers_of_one_table_lose_nothing(tmp_path):
    """Neither knows of the other; a shard that both make is one file."""
    problems = digit_problems(4)
    writers = [ValueTable.start(tmp_path / "t", FINGERPRINT, {}) for _ in range(2)]
    for number, problem in enumerate(problems):
        writers[number % 2].append([sample(problem, n, float(n < 3)) for n in range(8)])
    writers[0].append([sample(problems[1], n, float(n < 3)) for n in range(8)])
    assert len(shards(writers[0])) == 4
    assert (ValueTable(tmp_path / "t").samples().num_rows) == 32
    assert writers[1].missing_samples(problems, 8) == [[], [], [], []]
    assert shards(fill(tmp_path / "alone", problems)) == shards(writers[0])


def test_a_table_reads_each_shard_as_often_whatever_their_number(tmp_path, monkeypatch):
    reads = Counter()

    def counted(path, *columns):
        reads[path] += 1
        return read_shard(path, *columns)

    monkeypatch.setattr("astarpo.values.table.read_shard", counted)
    most = set()
    for count in (3, 12):
        fill(tmp_path / f"{count}", digit_problems(count))
        fill(tmp_path / f"{count}", digit_problems(count))
        assert len(reads) == count
        most.add(max(reads.values()))
        reads.clear()
    assert len(most) == 1


def test_samples_that_are_there_twice_count_once(table):
    problems = digit_problems(3)
    table.append([sample(problems[1], n, float(n < 3)) for n in (3, 2)])
    assert table.missing_samples(problems, 8) == [[], [], []]
    assert table.values(problems, Plugin(math.inf)).v_star_P.tolist() == [0, 3 / 8, 1]


REWARD = "def f(completions, **columns): return [float({})] * len(completions)\n"


def test_stored_samples_are_judged_anew(tmp_path, caplog):
    """By a reward function that has changed; killed halfway, the rest is done by the next call."""
    caplog.set_level("INFO")
    file = tmp_path / "mine.py"
    reward = f"{file}:f"
    problems = [
        dataclasses.replace(problem, data_source=f"reward:{reward}")
        for problem in digit_problems(2)
    ]
    file.write_text(REWARD.format("1"))
    first = FINGERPRINT | verifier_fingerprint(problems, reward)
    table = ValueTable.start(tmp_path / "t", first, {})
    for problem in problems:
        table.append([sample(problem, n, 1.0) for n in range(2)])
    finish(table, problems, 2, 0.5)
    names = set(shards(table))
    file.write_text(REWARD.format("0.25"))
    second = FINGERPRINT | verifier_fingerprint(problems, reward)
    with pytest.raises(UserError, match=r"it has changed since .* astarpo estimate .* --rejudge"):
        ValueTable.start(table.path, second, {})
    with Grader(1, 5.0, reward) as grader:
        table = ValueTable.start(table.path, second, {}, any_verifier=True)
        with pytest.raises(UserError, match="give the file that they were sampled from"):
            rejudge(table, problems[:1], grader)
        with pytest.raises(UserError, match=r"does not belong .* --rejudge"):
            ValueTable.start(table.path, second, {}).rewards(problems, 2)
        table = ValueTable.start(table.path, second, {}, any_verifier=True)
        rejudge(table, problems, grader)
    assert "4 stored samples anew: 4 rewards" in caplog.text or "2 rewards" in caplog.text
    assert set(shards(table)) == names
    assert (ValueTable.start(table.path, second, {}).rewards(problems, 2) == 0.25).all()


def test_what_sampled_a_shard_stays_known(tmp_path):
    """In the shard itself, also when it is judged anew; version 0.2.0 kept it in the manifest."""
    problems = digit_problems(2)
    table = ValueTable.start(tmp_path / "t", FINGERPRINT, {})
    table.append([sample(problems[0], 0, 1.0)], "hf (0.3.0, float32)")
    (first,) = shards(table)
    table.append([sample(problems[1], 0, 1.0)])
    (second,) = shards(table).keys() - {first}
    assert shard_engines(table.path) == {first: "hf (0.3.0, float32)"}
    table.set_facts(shard_engines={second: "vllm (vllm 0.32.0, float32)"})
    table = ValueTable.start(
        table.path, FINGERPRINT | {"verifier of gsm8k": "2"}, {}, any_verifier=True
    )
    with Grader(1, 5.0) as grader:
        rejudge(table, problems, grader)
    assert shard_engines(table.path) == {
        first: "hf (0.3.0, float32)", second: "vllm (vllm 0.32.0, float32)",
    }  # fmt: skip


def test_judging_anew_seals_what_version_0_1_0_wrote(old_table):
    table = ValueTable.start(old_table, FINGERPRINT, {}, any_verifier=True)
    with Grader(1, 5.0) as grader:
        rejudge(table, digit_problems(2), grader)
    assert all(len(name) == len("samples-.parquet") + 16 for name in shards(table))
    assert len(table.samples()) == 16
    assert table.rewards(digit_problems(2), 8).tolist() == [[0] * 8, [1] * 8]


def test_a_finished_table_knows_how_long_prompts_are(table):
    problems, by = digit_problems(4), {"tokenizer": "t", "prompt_format": "raw"}
    ids, file = ids_of(problems), table.path / "values.parquet"
    assert read_lengths(table.path, ids, by).tolist() == [0] * 4  # of a table without lengths
    found = table.values(problems[:3], Plugin(0.5), 8)
    lengths = PromptLengths(np.array([7, 12, 9]), by)
    table.write_values(problems[:3], found, lengths)
    assert read_lengths(table.path, ids, by).tolist() == [7, 12, 9, 0]
    assert read_lengths(table.path, ids[1:2], by).tolist() == [12]
    assert read_lengths(table.path, ids, by | {"tokenizer": "other"}).tolist() == [0] * 4
    file.write_bytes(flipped(file.read_bytes(), 100))
    assert read_lengths(table.path, ids, by).tolist() == [0] * 4
    file.unlink()
    assert read_lengths(table.path, ids, by).tolist() == [0] * 4


def test_places_are_found_by_texts_and_by_codes():
    names = pa.array(["a", "b", "c"])
    texts = ["c", "x", None, "a", "c", "b", "y"]
    plain = pa.chunked_array([texts[:3], texts[3:]], pa.string())
    codes = [pa.array(part, pa.string()).dictionary_encode() for part in (texts[:3], [], texts[3:])]
    expected = [2, -1, -1, 0, 2, 1, -1]
    assert places(plain, names).tolist() == expected
    assert places(pa.chunked_array(codes), names).tolist() == expected
    assert places(plain.slice(0, 0), names).tolist() == []
    assert places(plain, names[:0]).tolist() == [-1] * 7
    assert column_counts(pa.chunked_array(codes)) == column_counts(plain)
    assert different(plain).to_pylist() == ["c", "x", None, "a", "b", "y"]


def test_of_all_samples_no_text_is_read_for_v_star(table, monkeypatch):
    asked = []

    def counted(path, columns=None):
        asked.append(columns)
        return read_shard(path, columns)

    monkeypatch.setattr("astarpo.values.table.read_shard", counted)
    problems = digit_problems(3)
    table.values(problems, Plugin(0.5))
    table.missing_samples(problems, 9)
    assert table.sampled(digit_problems(5)) == problems
    assert len(asked) == 9
    assert not {"text", "token_ids"} & {name for columns in asked for name in columns}
