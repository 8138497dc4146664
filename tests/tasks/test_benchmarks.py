import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astarpo.config import DataConfig
from astarpo.grading.pool import GradingPool
from astarpo.stages.data import data
from astarpo.tasks import get_task
from astarpo.tasks.benchmarks import accepted_answers
from astarpo.tasks.problem_set import read_problems
from astarpo.types import UserError

BOXED = ["math500", "minerva_math", "olympiadbench", "amc23", "aime24", "aime25", "hmmt"]


def read(task, *rows, folder, split="test"):
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return list(get_task(task).problems(source=str(path), split=split, size=None, seed=0))


# One row of each public copy, by its own columns.
LAYOUTS = [
    (
        "math500",
        {
            "problem": "Q",
            "solution": r"so $\boxed{\left( 3, \frac{\pi}{2} \right)}$",
            "answer": r"\left( 3, \frac{\pi}{2} \right)",
            "subject": "Precalculus",
            "level": 2,
            "unique_id": "test/precalculus/807.json",
        },
        r"\left( 3, \frac{\pi}{2} \right)",
    ),
    ("minerva_math", {"question": "Q", "answer": "4.5e33"}, "4.5e33"),
    ("minerva_math", {"problem": "Q", "solution": r"\boxed{1.6} \mathrm{~cm}", "idx": 0}, "1.6"),
    ("minerva_math", {"problem": "Q", "solution": r"\boxed{-1./3}", "type": "18.03"}, "-1/3"),
    ("minerva_math", {"problem": "Q", "solution": r"\boxed{np.arcsin(10/13)}"}, r"\arcsin(10/13)"),
    (
        "olympiadbench",
        {
            "id": 1606,
            "subfield": "Combinatorics",
            "context": None,
            "question": "Q",
            "solution": ["It is 2."],
            "final_answer": ["2"],
            "is_multiple_answer": False,
            "unit": None,
            "answer_type": "Numerical",
            "error": None,
            "modality": "Text-only",
            "subject": "Math",
            "language": "English",
        },
        "2",
    ),
    (
        "olympiadbench",
        {"question": "Q", "final_answer": ["$69$,$84$"], "is_multiple_answer": True},
        "69,84",
    ),
    (
        "olympiadbench",
        {"question": "Q", "final_answer": ["1", "$x^2$"], "is_multiple_answer": True},
        "1, x^2",
    ),
    (
        "olympiadbench",
        {"question": "Q", "final_answer": ["1", "2"], "is_multiple_answer": False},
        '["1", "2"]',
    ),
    ("amc23", {"id": 0, "question": "Q", "answer": "27", "url": "u"}, "27"),
    ("amc23", {"id": 0, "problem": "Q", "answer": 27.0, "url": "u", "question": "Q"}, "27"),
    ("amc23", {"question": "Q", "answer": -1}, "-1"),
    ("aime24", {"id": 60, "problem": "Q", "solution": r"\boxed{204}", "url": "u"}, "204"),
    ("aime24", {"id": 60, "problem": "Q", "solution": "by hand", "answer": "025"}, "025"),
    ("aime24", {"ID": "2024-II-4", "Problem": "Q", "Solution": "33.", "Answer": 33}, "33"),
    ("aime25", {"problem": "Q", "answer": "70", "id": "0"}, "70"),
    ("aime25", {"problem_idx": 1, "problem": "Q", "answer": 70, "problem_type": ["NT"]}, "70"),
    (
        "hmmt",
        {"problem_idx": 1, "problem": "Q", "answer": r"1-\frac{2}{\pi}", "problem_type": ["A"]},
        r"1-\frac{2}{\pi}",
    ),
    ("hmmt", {"prompt": "Q", "answer": ["3", "4"]}, '["3", "4"]'),
]


@pytest.mark.parametrize(("task", "row", "gold"), LAYOUTS)
def test_reads_the_public_copies(task, row, gold, tmp_path):
    (problem,) = read(task, row, folder=tmp_path)
    assert problem.ground_truth == gold
    assert problem.id == f"{task}/test/0"
    assert problem.prompt[0]["content"] == (
        "Q Let's think step by step and output the final answer within \\boxed{}."
    )
    assert get_task(problem.data_source) is get_task(task)
    assert "solution" not in problem.extra


def test_what_questions_share_comes_first(tmp_path):
    row = {"context": "Let $x=2$.", "question": "What is $x^2$?", "final_answer": ["4"]}
    (problem,) = read("olympiadbench", row, folder=tmp_path)
    assert problem.prompt[0]["content"].startswith("Let $x=2$.\nWhat is $x^2$? Let's")


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("aime24", {"q": "Q", "answer": 1}, "expected a text column problem or question or prompt"),
        ("aime24", {"problem": "Q"}, "no answer in column final_answer or answer"),
        ("aime24", {"problem": "Q", "answer": None, "solution": "no box"}, "no answer"),
        ("aime24", {"problem": "Q", "answer": 1000}, "'1000' cannot be an answer of aime24"),
        ("aime24", {"problem": "Q", "answer": r"\frac{1}{2}"}, "cannot be an answer of aime24"),
        ("amc23", {"question": "Q", "answer": 2.5}, "'2.5' cannot be an answer of amc23"),
        ("amc23", {"question": "Q", "answer": True}, "no answer"),
        ("hmmt", {"problem": "Q", "answer": r"\frac{1}{2"}, "cannot be an answer of hmmt"),
        ("hmmt", {"problem": "Q", "answer": []}, "no answer"),
        ("hmmt", {"problem": "Q", "answer": ["3", None]}, "no answer"),
        (
            "olympiadbench",
            {"question": "Q", "final_answer": ["1"], "modality": "Multimodal"},
            "modality is 'Multimodal'; olympiadbench is 'Text-only' only",
        ),
        (
            "olympiadbench",
            {"question": "Q", "final_answer": ["1"], "language": "Chinese"},
            "language is 'Chinese'",
        ),
    ],
)
def test_wrong_rows_are_refused(task, row, message, tmp_path):
    with pytest.raises(UserError) as error_info:
        read(task, {"problem": "Q", "question": "Q", "answer": "1"}, row, folder=tmp_path)
    assert "line 2: " in str(error_info.value)
    assert message in str(error_info.value)


@pytest.mark.parametrize("task", [*BOXED, "hellaswag"])
def test_a_benchmark_has_no_training_split(task, tmp_path):
    with pytest.raises(UserError, match="give --split test"):
        read(task, folder=tmp_path, split="train")


@pytest.mark.parametrize(
    ("task", "source", "expected"),
    [
        ("math500", None, ("HuggingFaceH4/MATH-500", None, "test")),
        ("olympiadbench", None, ("math-ai/olympiadbench", None, "test")),
        (
            "olympiadbench",
            "Hothan/OlympiadBench",
            ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"),
        ),
        ("aime24", "HuggingFaceH4/aime_2024", ("HuggingFaceH4/aime_2024", None, "train")),
        ("hmmt", None, ("MathArena/hmmt_feb_2025", None, "train")),
        ("hmmt", "my/copy", ("my/copy", None, "test")),
        ("hellaswag", None, ("Rowan/hellaswag", None, "validation")),
    ],
)
def test_each_hub_copy_is_asked_for_its_own_split(task, source, expected, monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        raise FileNotFoundError("no network in this test")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="from the hub"):
        list(get_task(task).problems(source=source, split="test", size=None, seed=0))
    assert asked == [expected]


def test_written_as_a_problem_set_and_read_back(tmp_path):
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"problem": ["A", "B"], "answer": ["025", "3"]}), rows)
    out = tmp_path / "aime24.parquet"
    data(DataConfig(task="aime24", source=str(rows), split="test", out=out))
    first, second = read_problems(out)
    assert (first.id, first.ground_truth) == ("aime24/test/0", "025")
    assert second.prompt[0]["content"].startswith("B Let's")
    again = get_task("aime24").problems(source=str(out), split="test", size=None, seed=0)
    assert [problem.id for problem in again] == ["aime24/test/0", "aime24/test/1"]


def test_accepted_answers():
    assert accepted_answers('["1", "2"]') == ["1", "2"]
    assert accepted_answers("[2,5]") == ["[2,5]"]
    assert accepted_answers('["1", 2]') == ['["1", 2]']
    assert accepted_answers('["1') == ['["1']


JUDGED = [
    ("aime24", r"\boxed{25}", "025", 1),
    ("aime24", r"\boxed{025}", "25", 1),
    ("aime24", r"\boxed{n = 25}", "25", 1),
    ("aime24", r"\boxed{205}", "25", 0),
    ("aime24", "The answer is 25.", "25", 1),
    ("aime24", "It may be 25", "25", 0),
    ("amc23", r"\boxed{27.0}", "27", 1),
    ("amc23", r"\boxed{27\text{ miles}}", "27", 1),
    ("minerva_math", r"\boxed{1.6 \mathrm{~cm}}", "1.6", 1),
    ("minerva_math", r"\boxed{1.6\text{ cm}}", "1.6", 1),
    ("minerva_math", r"\boxed{4.5 \times 10^{33}}", "4.5e33", 1),
    ("minerva_math", r"\boxed{4.5\times 10^{33}\text{ erg/s}}", "4.5e33", 1),
    ("minerva_math", r"\boxed{4.5e33}", "4.5e33", 1),
    ("minerva_math", r"\boxed{4.5E+33}", "4.5e33", 1),
    ("minerva_math", r"\boxed{4.6e33}", "4.5e33", 0),
    ("minerva_math", r"\boxed{10^{-5}}", "1e-5", 1),
    ("minerva_math", r"\boxed{0.00001}", "1e-5", 1),
    ("minerva_math", r"\boxed{10^{-6}}", "1e-5", 0),
    ("minerva_math", r"\boxed{-\frac{1}{3}}", "-1/3", 1),
    ("minerva_math", r"\boxed{\arcsin(\frac{10}{13})}", r"\arcsin(10/13)", 1),
    ("minerva_math", r"\boxed{MR = SRMC}", "MR=SRMC", 1),
    (
        "minerva_math",
        r"\boxed{\frac{1}{2}(e^{at}-e^{-at})}",
        r"\frac{1}{2}(\exp{a*t}-\exp{-a*t})",
        1,
    ),
    ("olympiadbench", r"\boxed{84, 69}", "69,84", 1),
    ("olympiadbench", r"\boxed{69}", "69,84", 0),
    ("olympiadbench", r"\boxed{x=1, x=2}", "1,2", 1),
    ("olympiadbench", r"\boxed{(3,2),(1,1)}", "(1,1), (3,2)", 1),
    ("olympiadbench", r"\boxed{(2,3),(1,1)}", "(1,1), (3,2)", 0),
    ("olympiadbench", r"\boxed{f(x)=x+1, f(x)=-1}", "f(x)=-1,f(x)=x+1", 1),
    ("olympiadbench", r"\boxed{2}", '["1", "2"]', 1),
    ("olympiadbench", r"\boxed{3}", '["1", "2"]', 0),
    ("hmmt", r"\boxed{26!\cdot 2^{25}}", r"2^{25} \cdot 26!", 1),
    (
        "hmmt",
        r"\boxed{\frac{-1-\sqrt{17}}{2},\frac{-1+\sqrt{17}}{2}}",
        r"\frac{-1+\sqrt{17}}{2}, \frac{-1-\sqrt{17}}{2}",
        1,
    ),
    ("hmmt", r"\boxed{\frac{\sqrt{570}}{12}}", r"\sqrt{\frac{95}{24}}", 1),
    ("math500", r"\boxed{\text{Evelyn}}", r"\text{Evelyn}", 1),
]


def test_judging():
    with GradingPool(num_workers=1, timeout_s=10.0) as pool:
        verdicts = pool.grade([(task, response, gold) for task, response, gold, _ in JUDGED])
    wrong = [
        (case, verdict)
        for case, verdict in zip(JUDGED, verdicts, strict=True)
        if verdict.reward != case[3]
    ]
    assert wrong == []
    # The answer is kept as it was written.
    assert verdicts[11].answer == r"4.5\times 10^{33}\text{ erg/s}"
    assert verdicts[5].status == "no_answer"


@pytest.mark.parametrize("task", BOXED)
def test_the_version_names_the_verifier(task):
    assert get_task(task).version == f"1, math {get_task('math').version}"
    assert get_task(task).isolated
