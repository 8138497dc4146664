from astarpo.types import Message, Problem, Verdict
from astarpo.verbs.side_by_side import Exchange, Reply, show

PROBLEM = Problem("sum/1", "gsm8k", (Message(role="user", content="1 + 1?\n"),), "2")


def shown_lines(capsys, problem=PROBLEM, value=None, **replies):
    show(Exchange(problem, value, replies))
    return [line.strip("│┃ ") for line in capsys.readouterr().out.splitlines()]


def test_answers_stand_side_by_side_with_verdicts(capsys):
    right = Reply("It is 2.\n#### 2", False, Verdict(1.0, "2", "ok"))
    lost = Reply("[bold]so", True, Verdict(0.0, None, "no_answer"))
    lines = shown_lines(
        capsys, value=(0.75, 0.125), reference=[lost, right], trained=[right, right]
    )
    assert lines[:2] == ["1 + 1?", "sum/1   right: 2   V* 0.750 ± 0.125"]
    heads = "reference, mean reward 0.50 of 2", "trained, mean reward 1.00 of 2"
    assert [part.strip() for part in lines[3].split("┃")] == list(heads)
    rows = [[part.strip() for part in line.split("│")] for line in lines if " │ " in line]
    assert rows[:2] == [
        ["[bold]so [cut at the token limit]", "It is 2."],
        ["-> no answer", "#### 2"],
    ]
    assert "\n".join(lines).count("-> right (2)") == 3


def test_no_error_is_told_where_it_is_not_known(capsys):
    half = [Reply("a", False, Verdict(0.5, None, "ok"))]
    lines = shown_lines(capsys, value=(0.0, float("nan")), reference=half, trained=half)
    assert lines[1] == "sum/1   right: 2   V* 0.000"


def test_rewards_between_and_unjudged_answers(capsys):
    half = [Reply("a", False, Verdict(0.5, None, "ok"))]
    lines = shown_lines(capsys, reference=half, trained=[Reply("b\x1b[2J", False, None)])
    text = "\n".join(lines)
    assert "V* not estimated: held out, or set aside" in text
    assert "-> wrong, reward 0.5" in text
    assert "\x1b[2J" not in text
    typed = Problem("typed", "", PROBLEM.prompt, "")
    assert "add => and the right answer" in "\n".join(shown_lines(capsys, typed, reference=half))
