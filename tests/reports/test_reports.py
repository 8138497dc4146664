"""Numbers and choices of reports."""

from pathlib import Path

import pyarrow as pa
import pytest

from astarpo.reports import answers
from astarpo.reports.answers import (
    Source,
    choose_problems,
    columns,
    first_problems,
    read_sources,
    shorten,
    verdict_counts,
    with_texts,
)
from astarpo.reports.changes import paired_changes
from astarpo.reports.collect import clean, run_names
from astarpo.reports.page import to_json
from astarpo.reports.stage1 import summarize_stage1, values_by_problem
from astarpo.rundir.reader import RunDirectory, format_duration
from astarpo.runtime.parquet import write_parquet
from astarpo.values.estimators import value_estimates


def samples(rewards: dict[str, list[float]], **columns: list) -> pa.Table:
    rows = [(name, i, r) for name, values in rewards.items() for i, r in enumerate(values)]
    names, numbers, values = zip(*rows, strict=True)
    table = {
        "problem_id": names, "sample": numbers, "reward": values,
        "num_tokens": [10 + 2 * i for i in range(len(rows))], "text": ["é" * 50] * len(rows),
        "status": ["ok"] * len(rows), "finish_reason": ["stop"] * len(rows),
        "mode": ["sampled"] * len(rows), "answer": [str(r) for r in values],
    }  # fmt: skip
    return pa.table(table | columns)


def test_stage_1_is_told_at_the_betas_and_samples_of_training():
    table = samples({"a": [0, 1, 0, 1], "b": [1, 1, 1, 1], "c": [0, 0]})
    values = values_by_problem(table, {"beta1": 0.25, "values_samples": 3})
    v_star, error = value_estimates([[0.0, 1.0, 0.0]], 0.25)
    assert values["a"] == pytest.approx([1 / 3, v_star[0], error[0]], abs=1e-6)
    assert values["b"] == [1, 1, 0]
    found = summarize_stage1(table, {"beta1": "Infinity"})
    assert found is not None
    assert found["beta1"] == "inf"
    assert found["num_samples"] == [2, 4]
    assert found["solve_rates"] == {"x": [0.0, 0.5, 1.0], "count": [1, 1, 1]}
    assert [point[:2] for point in found["points"]] == [[0, 0], [0.5, 0.5], [1, 1]]
    # Jackknife errors sqrt(1/12), 0 and 0; one of three problems has no right sample.
    assert found["advice"][0].startswith(
        "error of V* 0.167 (root mean square, in units of reward), with twice the samples 0.118; "
        "unsolved 33.3% of problems, with twice"
    )
    assert sum(found["lengths"]["right"]) == 6
    assert sum(found["lengths"]["not_right"]) == 4
    assert summarize_stage1(table.slice(0, 0), {}) is None


def test_beta_0_is_the_maximum():
    assert values_by_problem(samples({"a": [0, 1]}), {"beta1": 0.0})["a"] == [0.5, 1, 0]


def test_many_levels_of_reward_become_a_histogram():
    table = samples({str(i): [i / 1000, i / 1000] for i in range(1000)})
    found = summarize_stage1(table, {})
    assert found is not None
    assert len(found["points"]) == 400
    assert sum(found["solve_rates"]["count"]) == 1000
    assert len(found["solve_rates"]["x"]) <= 33


def test_whole_problems_are_kept_up_to_either_limit(monkeypatch):
    source = Source(0, "stage1", samples({str(i): [0.0] * 5 for i in range(20)}))
    assert len(choose_problems([source], 100)) == 20
    assert len(choose_problems([source], 99)) == 19
    assert choose_problems([source], 49) < choose_problems([source], 99)
    monkeypatch.setattr(answers, "_MAX_TEXT_BYTES", 5 * 100 * 3)
    assert len(choose_problems([source], 100)) == 3


def test_verdicts_are_counted_once_each():
    table = samples(
        {"a": [1, 0, 0, 0.5]},
        status=["ok", "no_answer", "timeout", "ok"],
        finish_reason=["stop", "length", "length", "stop"],
    )
    assert verdict_counts(table) == {
        "right": 1, "wrong": 1, "no_answer": 1, "unparsable": 0, "timeout": 1, "error": 0, "cut": 2,
    }  # fmt: skip


def test_changes_pair_the_problems():
    before = samples({"a": [0, 1], "b": [0, 0], "c": [1, 1], "only": [1, 1]})
    after = samples({"c": [0, 1], "a": [1, 1], "b": [1, 1]})
    change = paired_changes(before, after)["avg_at_2"]
    assert change["value"] == pytest.approx((0.5 + 1 - 0.5) / 3)
    assert (change["better"], change["worse"]) == (2, 1)
    spread = 0.7637626 / 3**0.5
    assert change["high"] - change["value"] == pytest.approx(1.959964 * spread, rel=1e-5)
    assert paired_changes(before, after.slice(0, 0)) == {}


def test_short_names_tell_runs_apart():
    assert run_names([Path("/r/a"), Path("/r/b")]) == ["a", "b"]
    assert run_names([Path("/r/a/train"), Path("/r/b/train")]) == ["a/train", "b/train"]
    assert run_names([Path("/r/a"), Path("/r/a")]) == ["a", "a"]


def test_json_may_stand_in_a_script_tag():
    value = {"</script>": ["<!--", "&", "é", None, 0.1]}
    text = to_json(clean(value | {"not finite": float("nan"), "half": "a\ud800"}))
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert '"not finite":null' in text
    assert "\\ufffd" in text


def test_columns_are_cleaned_like_their_items():
    for column in ([1, None, True], ["a", "b"], ["a", "b\ud800"], ["a", None], [0.1234567891, 1]):
        assert clean(column) == [clean(item) for item in column]
        assert clean(tuple(column)) == clean(column)


def test_what_is_long_is_cut_and_says_so():
    assert shorten(None) == ""
    assert shorten("abcdef", 4) == "abcd\n[… 2 more characters]"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h"), (1e5, "1.2 d")],
)
def test_durations_read_well(seconds, text):
    assert format_duration(seconds) == text


def test_texts_are_read_of_the_problems_in_the_page_alone(tmp_path, monkeypatch):
    """A table of many shards: each is read for its numbers, and few for their texts."""
    (tmp_path / "values").mkdir()
    (tmp_path / "config.json").write_text('{"algorithm": "astar_po", "values": "values"}')
    shards = {}
    for number in range(40):
        rewards = {f"{number}-{i}": [0.0, 1.0] for i in range(25)}
        texts = [f"answer {k} of {name}" for name in rewards for k in range(2)]
        shards[f"samples-{number:016x}.parquet"] = rows = samples(rewards, text=texts)
        write_parquet(tmp_path / "values" / f"samples-{number:016x}.parquet", rows)
    notes = []
    monkeypatch.chdir(tmp_path)
    sources = read_sources(RunDirectory(tmp_path, tmp_path, is_recipe=False), 0, notes)
    assert notes == []
    assert sum(len(source.table) for source in sources) == 2000
    assert "text" not in sources[0].table.column_names
    assert verdict_counts(sources[0].table)["right"] == 1000
    opened = []

    def counted(path, **settings):
        opened.append(path)
        return open_parquet(path, **settings)

    open_parquet = answers.open_parquet
    monkeypatch.setattr(answers, "open_parquet", counted)
    shown = with_texts(sources, first_problems(sources, 10))
    kept = choose_problems(shown, 10)
    assert len(kept) == 5
    assert 0 < len(opened) <= 5
    whole = Source(0, "stage1", pa.concat_tables(shards.values()))
    assert kept == choose_problems([whole], 10)
    found = columns(shown, kept)
    names = [found["problems"][i] for i in found["problem"]]
    pairs = zip(names, found["sample"], strict=True)
    assert found["text"] == [f"answer {number} of {name}" for name, number in pairs]
