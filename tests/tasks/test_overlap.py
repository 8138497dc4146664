"""What is held out is not trained on: in the files that are given, and in those that are made."""

import json
import sys

import pytest

from astarpo.cli import main
from astarpo.config import DataConfig
from astarpo.stages.data import data, keep_apart
from astarpo.tasks import overlap
from astarpo.tasks.overlap import is_held_out, near_question, refuse_overlap
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import Problem, UserError
from tests.conftest import digit_problems


def asking(text: str) -> Problem:
    return Problem(text, "gsm8k", ({"role": "user", "content": text},), "1")


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("Compute 4 + 3 - 2.", "Compute 3 - 2 + 4.", True),
        ("Compute 4 + 3 - 2.", "Compute 4 + 2 - 3.", False),
        ("Pay 1,000 dollars", "pay  1000 Dollars!", True),
        ("47*86", "86 * 47", True),
        ("47*86", "47+86", False),
        ("47*86", "47*87", False),
        ("2.5 km", "25 km", False),
    ],
)
def test_near_problems(one, other, near):
    assert (near_question(asking(one)) == near_question(asking(other))) == near


def test_a_share_holds_near_problems_together():
    sums = [(asking(f"{a} + {b} + 7"), asking(f"7 + {b} + {a}")) for a in range(40) for b in (1, 2)]
    held_out = [is_held_out(one, 0.25) for one, _ in sums]
    assert held_out == [is_held_out(other, 0.25) for _, other in sums]
    assert 8 <= sum(held_out) <= 32


def test_shared_problems_are_refused_and_near_ones_counted(caplog):
    names = ("train", "test")
    with pytest.raises(UserError, match=r"test: 1 of 2 held-out problems, such as 1 \+ 2, are"):
        refuse_overlap([asking("1 + 2"), asking("3")], [asking("1 + 2"), asking("4")], names)
    refuse_overlap([asking("1 + 2"), asking("3")], [asking("2 + 1"), asking("4")], names)
    assert "test: 1 of 2 held-out problems differ from one in train only in order" in caplog.text


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"How much is {i} pounds?", "answer": f"#### {i}"} for i in range(80)]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    return tmp_path


def config(name: str, **settings) -> DataConfig:
    return DataConfig(task="gsm8k", out=f"{name}.parquet", split=name, **settings)


def asked(path) -> set[str]:
    return {problem.prompt[0]["content"] for problem in read_problems(path)}


def test_one_source_for_both_is_split(source, caplog):
    apart = keep_apart(config("train", source="f.jsonl"), config("test", source="f.jsonl"))
    assert "12.5% of it is held out" in caplog.text
    data(apart.test)
    data(apart.train)
    train, test = asked(source / "train.parquet"), asked(source / "test.parquet")
    assert not train & test
    assert len(train | test) == 80
    assert 3 <= len(test) <= 20
    assert train == {p.prompt[0]["content"] for p in apart.problems}
    again = keep_apart(apart.train, apart.test)  # from the files that are there now
    assert (again.problems, again.held_out) == (apart.problems, apart.held_out)


def test_what_two_sources_share_is_left_out_of_training(source, caplog):
    apart = keep_apart(config("train", source="f.jsonl"), config("test", source="some.jsonl"))
    assert (len(apart.problems), len(apart.held_out)) == (75, 5)
    assert "left out: 5 problems that are held out" in caplog.text


def test_made_problems_are_apart_as_they_are(source):
    train, test = (
        DataConfig(task="multiply", size=2, limit=40, split=split, out=f"{split}.parquet")
        for split in ("train", "test")
    )
    apart = keep_apart(train, test)
    assert apart.test == test
    assert len(apart.problems) == 40


def test_train_refuses_and_what_the_message_says_to_do_works(source, policy_path, capsys):
    write_problems(source / "p.parquet", digit_problems(6))
    write_problems(source / "held.parquet", digit_problems(8)[4:])
    words = f"train --model {policy_path} --algorithm rloo --out r --dry-run"
    words += " --eval-problems held.parquet --problems"
    assert main([*words.split(), "p.parquet"]) == 2
    error = capsys.readouterr().err
    assert "2 of 4 held-out problems, such as digits/train/4, are trained on in p.parquet" in error
    assert "astarpo data --without held.parquet" in error
    made = "data own --source p.parquet --out q.parquet --without held.parquet"
    assert main(made.split()) == 0
    assert main([*words.split(), "q.parquet"]) == 0
    assert "4 problems after filter" in capsys.readouterr().out


def test_letters_that_are_counted_are_those_of_every_near_text():
    """So that a problem which is passed over by them can be neither the same nor near."""
    counted = set(overlap._COUNTED)
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        if counted & {*character.casefold()}:
            assert character.lower() == character.casefold()
            assert character.lower() in counted


def test_of_many_problems_few_are_looked_at_closely(monkeypatch, caplog):
    problems = [asking(f"How many {'egg' * (i % 9)} cost {i} dollars?") for i in range(20_000)]
    held_out = [asking("cost 7 dollars? How many " + "EGG" * 7), asking("Is it a dog?")]
    looked_at = []

    def counted(text):
        looked_at.append(text)
        return near_text(text)

    near_text = overlap.near_text
    monkeypatch.setattr(overlap, "near_text", counted)
    refuse_overlap(problems, held_out, ("train", "test"))
    assert "1 of 2 held-out problems differ from one in train only in order" in caplog.text
    assert len(looked_at) < len(problems) / 8
    with pytest.raises(UserError, match="1 of 3 held-out problems, such as How many"):
        refuse_overlap(problems, [*held_out, problems[-1]], ("train", "test"))
