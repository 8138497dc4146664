import pytest

from astarpo.types import Message, Problem, UserError
from astarpo.verbs.questions import TYPED, Frame, Questions, frame_of


def problem(text, name, gold="1", source="gsm8k", before=()):
    return Problem(name, source, (*before, Message(role="user", content=text)), gold)


def sums(count=10, before=()):
    return [
        problem(f"Compute {i} + 1. Answer after ####.\n", f"sum/{i}", str(i + 1), before=before)
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("7 + 8", "Compute 7 + 8. Answer after ####.\n"),
        ("Compute 7 + 8", "Compute 7 + 8. Answer after ####.\n"),
        ("7 + 8.", "Compute 7 + 8. Answer after ####.\n"),
        ("Compute 7 + 8. Answer after ####.", "Compute 7 + 8. Answer after ####.\n"),
        ("", "Compute . Answer after ####.\n"),
    ],
)
def test_what_is_typed_is_put_as_the_problems_are(typed, asked):
    frame = Frame("Compute ", ". Answer after ####.\n")
    assert frame.put(typed) == asked


def test_a_frame_is_what_all_problems_have_in_whole_words():
    assert frame_of(sums()) == Frame("Compute ", " + 1. Answer after ####.\n")
    asked = ["What is red?", "Where is it?", "Who else?", "Whose rates?"] * 2
    mixed = [problem(f"{text} Box it.", str(i)) for i, text in enumerate(asked)]
    assert frame_of(mixed) == Frame("", "? Box it.")
    assert frame_of(sums(3)) == Frame()  # Too few: they may be alike by chance.
    system = (Message(role="system", content="Be brief."),)
    assert frame_of(sums(before=system)).messages == system
    assert frame_of([*sums(before=system), *sums()]).messages == ()


def test_a_problem_of_the_run_is_known_by_id_and_by_text():
    problems = sums()
    questions = Questions(problems, seed=0)
    assert questions.by_id("sum/3") is problems[3]
    assert questions.typed("3") is problems[3]
    assert questions.typed("Compute 3 + 1. Answer after ####.") is problems[3]
    with pytest.raises(UserError, match=r"sum/33: no problem of this run.*: sum/3$"):
        questions.by_id("sum/33")


def test_another_problem_is_judged_where_its_answer_is_given():
    questions = Questions(sums(), seed=0)
    typed = questions.typed("77")
    assert (typed.id, typed.data_source, typed.ground_truth) == (TYPED, "", "")
    assert typed.prompt[-1]["content"] == "Compute 77 + 1. Answer after ####.\n"
    judged = questions.typed("77 => 78")
    assert (judged.data_source, judged.ground_truth) == ("gsm8k", "78")
    assert judged.prompt == typed.prompt
    with pytest.raises(UserError, match="gsm8k cannot judge against 'many'"):
        questions.typed("77 => many")
    own = Questions([problem("Q", "1", source="reward:r.py:f")], seed=0)
    with pytest.raises(UserError, match=r"no one task judges.*leave => out"):
        own.typed("Q? => 3")


def test_picks_repeat_by_seed_and_go_on():
    picks = [[Questions(sums(), seed).pick().id for _ in range(1)] for seed in (0, 0)]
    assert picks[0] == picks[1]
    questions = Questions(sums(), 0)
    assert len({questions.pick().id for _ in range(20)}) > 3


def test_without_problem_files_there_is_only_what_is_typed():
    questions = Questions([], seed=0)
    assert questions.typed("Q?").prompt == (Message(role="user", content="Q?"),)
    with pytest.raises(UserError, match="type a problem instead"):
        questions.pick()
    with pytest.raises(UserError, match="type a problem instead"):
        questions.by_id("a")
