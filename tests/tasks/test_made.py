import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from astarpo.grading.grade import grade
from astarpo.grading.pool import GradingPool
from astarpo.tasks import TASKS, get_task
from astarpo.tasks.made import new_of_split
from astarpo.types import STATUSES, UserError

MADE = ("arithmetic", "multiply", "countdown")


def make(task, count=200, *, split="train", size=None, seed=0):
    stream = TASKS[task].problems(source=None, split=split, size=size, seed=seed)
    return list(islice(stream, count))


@pytest.mark.parametrize("task", MADE)
@pytest.mark.parametrize("size", [None, 2, 5])
def test_worked_solutions_are_judged_right(task, size):
    for problem in make(task, 200, size=size):
        verdict = grade(task, problem.extra["solution"], problem.ground_truth)
        assert (verdict.reward, verdict.status) == (1.0, "ok"), problem


@pytest.mark.parametrize("task", MADE)
def test_splits_share_no_problem_whatever_the_seed(task):
    key = {
        "arithmetic": lambda p: tuple(sorted(p.id.split("/")[-1].replace("-", "+-").split("+"))),
        "multiply": lambda p: tuple(sorted(p.id.split("/")[-1].split("*"))),
        "countdown": lambda p: (
            p.ground_truth[:15],
            *sorted(json.loads(p.ground_truth)["numbers"]),
        ),
    }[task]
    train = {key(p) for seed in (0, 1, 2) for p in make(task, 300, seed=seed, size=2)}
    test = {key(p) for seed in (0, 1, 2) for p in make(task, 40, split="test", seed=seed, size=2)}
    assert train
    assert test
    assert not train & test


@pytest.mark.parametrize("task", MADE)
def test_a_seed_fixes_the_problems(task):
    problems = make(task)
    assert problems == make(task)
    assert problems[:50] == make(task, 50)
    assert {p.id for p in problems} != {p.id for p in make(task, seed=1)}
    assert len({p.id for p in problems}) == 200
    assert [p.extra["index"] for p in problems] == list(range(200))
    assert {p.extra["split"] for p in problems} == {"train"}


def test_notation():
    arithmetic = make("arithmetic", 1, size=3)[0]
    label = arithmetic.id.split("/")[-1]
    spaced = label.replace("+", " + ").replace("-", " - ")
    assert arithmetic.prompt[0]["content"] == f"Compute {spaced}. Answer after ####.\n"
    multiply = make("multiply", 1)[0]
    left, right = multiply.id.split("/")[-1].split("*")
    assert multiply.id == f"multiply/train/{left}*{right}"
    assert multiply.prompt[0]["content"] == f"Compute {left} * {right}. Answer after ####.\n"
    countdown = make("countdown", 1)[0]
    gold = json.loads(countdown.ground_truth)
    assert countdown.prompt[0]["content"] == (
        f"Reach {gold['target']} with {', '.join(map(str, gold['numbers']))} and + - * /, "
        "each number once. Answer after ####.\n"
    )


def test_multiply_shows_its_work():
    from astarpo.tasks.multiply import _solution

    assert _solution(47, 86) == "47*86=47*80+47*6=3760+282=4042\n#### 4042"
    assert _solution(12, 305) == "12*305=12*300+12*5=3600+60=3660\n#### 3660"
    assert _solution(12, 40) == "12*40=480\n#### 480"
    assert _solution(3, 4) == "3*4=12\n#### 12"


def test_arithmetic_shows_its_work():
    from astarpo.tasks.arithmetic import _question, worked_solution

    assert _question([47, 86, -23, 5]) == "Compute 47 + 86 - 23 + 5. Answer after ####.\n"
    assert worked_solution([47, 86, -23, 5]) == "47+86=133; 133-23=110; 110+5=115\n#### 115"
    assert worked_solution([3, -9, 2]) == "3-9=-6; -6+2=-4\n#### -4"
    slips = {(3, -9): 0, (-6, 2): 10}
    slipped = worked_solution([3, -9, 2], lambda total, term: slips[total, term])
    assert slipped == "3-9=-6; -6+2=6\n#### 6"


def test_small_spaces_end():
    train, test = (make("multiply", 10_000, split=split, size=1) for split in ("train", "test"))
    assert len(train) + len(test) == 45  # products of two digits from 1 to 9, order aside


def test_a_stream_ends_at_the_last_of_so_many_misses_in_a_row():
    found = {}
    for split in ("train", "test"):
        drawn = iter([("same", i) for i in range(10)])
        kept = [problem for _, problem in new_of_split(drawn, split, max_misses=3)]
        found[tuple(kept)] = next(drawn)[1]
    assert found == {(0,): 4, (): 3}  # what is kept, and the first problem not drawn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "takes sizes 1 to"),
        ({"size": 1000}, "takes sizes 1 to"),
        ({"split": "dev"}, "splits train and test, not 'dev'"),
        ({"source": "x.jsonl"}, "takes no source"),
    ],
)
def test_wrong_settings(arguments, message):
    settings = {"source": None, "split": "train", "size": None, "seed": 0} | arguments
    with pytest.raises(UserError, match=message):
        next(TASKS["multiply"].problems(**settings))


GOLD = '{"target": 24, "numbers": [3, 8, 1]}'


@pytest.mark.parametrize(
    ("task", "response", "gold", "reward", "status"),
    [
        ("multiply", "#### 4042", "4042", 1.0, "ok"),
        ("multiply", "#### 4,042.", "4042", 1.0, "ok"),
        ("multiply", "#### 4043", "4042", 0.0, "ok"),
        ("multiply", "4042", "4042", 0.0, "no_answer"),
        ("multiply", "4042 ####", "4042", 0.0, "no_answer"),
        ("multiply", "#### about 4042", "4042", 0.0, "unparsable"),
        ("multiply", "#### 4042\n#### 1", "4042", 0.0, "ok"),
        ("arithmetic", "#### -4", "-4", 1.0, "ok"),
        ("arithmetic", "#### 4", "-4", 0.0, "ok"),
        ("arithmetic", "#### **5**", "5", 1.0, "ok"),
        ("arithmetic", r"#### \boxed{-5}.", "-5", 1.0, "ok"),
        ("arithmetic", "#### $5$", "5", 1.0, "ok"),
        ("arithmetic", "#### `5`", "5", 1.0, "ok"),
        ("arithmetic", "#### **5** or **6**", "5", 0.0, "unparsable"),
        ("arithmetic", "#### **5", "5", 0.0, "unparsable"),
        ("arithmetic", "#### 2 + 3", "5", 0.0, "unparsable"),
        ("arithmetic", "#### 5 or 6", "5", 0.0, "unparsable"),
        ("multiply", "#### 4{,}042", "4042", 1.0, "ok"),
        ("multiply", "#### 4 042", "4042", 1.0, "ok"),
        ("multiply", "#### 47 * 86", "4042", 0.0, "unparsable"),
        ("multiply", "#### 10^3", "1000", 0.0, "unparsable"),
        ("countdown", "8*3=24; 24/1=24\n#### 8*3/1", GOLD, 1.0, "ok"),
        ("countdown", r"#### 3\times 8 \div 1", GOLD, 1.0, "ok"),
        ("countdown", r"#### 3 \cdot 8 / 1", GOLD, 1.0, "ok"),
        ("countdown", "#### 3x8/1", GOLD, 1.0, "ok"),
        ("countdown", r"#### 3\*8/1", GOLD, 1.0, "ok"),
        ("countdown", "#### $3*8/1$", GOLD, 1.0, "ok"),
        ("countdown", r"#### \[3*8/1\]", GOLD, 1.0, "ok"),
        ("countdown", "#### **3*8/1**.", GOLD, 1.0, "ok"),
        ("countdown", "#### [3*8]/1", GOLD, 1.0, "ok"),
        ("countdown", r"#### 3*\left(8/1\right)", GOLD, 1.0, "ok"),
        ("countdown", r"#### \frac{3 \times 8}{1}", GOLD, 1.0, "ok"),
        ("countdown", "#### 3*8/1 = 24", GOLD, 1.0, "ok"),
        ("countdown", "#### 24 = 3*8/1", GOLD, 1.0, "ok"),
        ("countdown", r"#### $3 \times 8 \div 1 = 24$", GOLD, 1.0, "ok"),
        ("countdown", "#### 3*8/1 = 25", GOLD, 0.0, "ok"),
        ("countdown", "#### 3*8 = 24", GOLD, 0.0, "ok"),
        ("countdown", "#### 3*8 = 24/1", GOLD, 0.0, "unparsable"),
        ("countdown", "#### 3*8/1 = 24 = 24", GOLD, 0.0, "unparsable"),
        ("countdown", "#### 24 = 24", GOLD, 0.0, "ok"),
        ("countdown", "#### 3*8/1 or 3+8+1", GOLD, 0.0, "unparsable"),
        ("countdown", "#### [3*8)/1", GOLD, 0.0, "unparsable"),
        ("countdown", "#### (8-1+1)*3", GOLD, 0.0, "ok"),
        ("countdown", "#### 8*3", GOLD, 0.0, "ok"),
        ("countdown", "#### 8*3*1*1", GOLD, 0.0, "ok"),
        ("countdown", "#### 8+3+1", GOLD, 0.0, "ok"),
        ("countdown", "#### 24", GOLD, 0.0, "ok"),
        ("countdown", "#### 8*3/(1-1)", GOLD, 0.0, "unparsable"),
        ("countdown", "#### 8*3**1", GOLD, 0.0, "unparsable"),
        ("countdown", "8*3/1", GOLD, 0.0, "no_answer"),
    ],
)
def test_judging(task, response, gold, reward, status):
    verdict = grade(task, response, gold)
    assert (verdict.reward, verdict.status) == (reward, status)


def test_names_and_aliases():
    benchmarks = "math500 minerva_math olympiadbench amc23 aime24 aime25 hmmt hellaswag"
    assert set(TASKS) == {*MADE, "gsm8k", "math", *benchmarks.split()}
    assert get_task("lighteval/MATH") is TASKS["math"]
    with pytest.raises(UserError, match="unknown task or data source 'maths'; known: arith"):
        get_task("maths")


def hostile_texts(mark: Path) -> list[str]:
    call = f"__import__('os').system('touch {mark}')"
    texts = ["9" * 10**5, "-" * 10**5, "(" * 10**5 + "1" + ")" * 10**5, "{" * 10**5 + "}" * 10**5]
    texts += ["9**9**9", "9^{9^{9^9}}", "10^{10^{10}}", "1e999999999", "99999!!!!!!", "0/0", "\x00"]
    texts += [
        "5\x00",
        "\ud800",
        "5\udfff",
        "\N{PILE OF POO}" * 1000,
        "a b " * 250_000,
        "\n" * 10**6,
    ]
    texts += [r"\frac{" * 10**4, r"\sqrt{" * 300 + "2" + "}" * 300, "1,111" * 10**5, "####" * 10**5]
    texts += [r"\binom{10^9}{10^8}", r"\begin{pmatrix}1\\" * 200, r"\int_0^1 x^x dx", "x" * 1900]
    texts += [r"\operatorname{zeros}(99999,99999)", r"\text{" + call + "}", call]
    texts += [r"\sum_{n=0}^\infty \frac{1+n\text{" + call + "}}{n!}+1"]
    return texts


@pytest.mark.parametrize("task", sorted(TASKS))
def test_hostile_responses_hurt_nobody(task, tmp_path):
    """No crash and no hang past the limit in any slot, and nothing runs."""
    mark = tmp_path / "made"
    gold = {"countdown": GOLD, "math": r"\sqrt{2}"}.get(task, "18")
    slots = ["@", r"\boxed{@}"] if task == "math" else ["@", "#### @", r"\boxed{@}"]
    responses = [slot.replace("@", text) for text in hostile_texts(mark) for slot in slots]
    responses.append("The answer is $9^{9^{9^9}}$.")
    if TASKS[task].isolated:
        with GradingPool(num_workers=2, timeout_s=1.0) as pool:
            verdicts = pool.grade([(task, response, gold) for response in responses])
    else:
        verdicts = [grade(task, response, gold) for response in responses]
    assert all(verdict.reward == 0.0 for verdict in verdicts)
    assert {verdict.status for verdict in verdicts} <= set(STATUSES) - {"error"}
    assert not mark.exists()


def test_judging_imports_neither_torch_nor_transformers():
    check = (
        "import sys; from astarpo.grading.grade import grade; grade('gsm8k', '#### 1', '1'); "
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_grade_leaves_no_process_behind():
    script = (
        "from astarpo.grading.grade import _pool_of_one, grade\n"
        r"assert grade('math', r'\boxed{x/2}', r'\frac{x}{2}').reward == 1.0"
        "\nprint(_pool_of_one()._workers[0].pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not Path(f"/proc/{int(done.stdout)}").exists()
