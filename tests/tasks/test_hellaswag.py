import copy
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from astarpo.evaluation.choices import has_choices, pick_choices
from astarpo.models.prompts import fit_prompts
from astarpo.tasks import get_task
from astarpo.types import Problem, UserError

TASK = get_task("hellaswag")

ROW = {
    "ind": 24,
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "ctx": "A man is sitting on a roof. he",
    "endings": ["is using wrap.", "is ripping  tiles [step] off.", " is holding.", "starts"],
    "source_id": "activitynet~v_-JhWjGDPHMY",
    "split": "val",
    "split_type": "indomain",
    "label": "3",
}


def read(*rows, folder):
    path = folder / "hellaswag.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return list(TASK.problems(source=str(path), split="test", size=None, seed=0))


def test_texts_are_cleaned_as_published(tmp_path):
    wikihow = ROW | {
        "activity_label": "Family Life",
        "ctx_a": "[header] How to talk [title] Choose a time. [step] Ask IN person.",
        "ctx_b": "",
        "label": 0,
    }
    first, second = read(ROW, wikihow, folder=tmp_path)
    assert first.prompt[0]["content"] == "Roof shingle removal: A man is sitting on a roof. He"
    assert first.extra["choices"] == [
        "is using wrap.", "is ripping tiles off.", "is holding.", "starts",
    ]  # fmt: skip
    assert (first.ground_truth, first.id) == ("3", "hellaswag/test/0")
    assert second.prompt[0]["content"] == (
        "Family Life: How to talk. Choose a time. Ask IN person."
    )
    assert second.ground_truth == "0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ""}, "the published test split has no labels"),
        ({"label": "4"}, "label is '4'"),
        ({"endings": ["a", "b"]}, "expected 4 texts in column 'endings'"),
        ({"endings": ["a", "b", "c", None]}, "expected 4 texts"),
        ({"ctx_a": None}, "ctx_a"),
    ],
)
def test_wrong_rows_are_refused(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(ROW | change, folder=tmp_path)


def test_reads_the_published_codes_file(tmp_path):
    """A-PO's `preprocess/data_preprocess/hellaswag.py`: verl's layout, choices beside the gold."""
    row = {
        "data_source": "Rowan/hellaswag",
        "prompt": [{"role": "user", "content": "Roof: He"}],
        "ability": "nlp",
        "reward_model": {
            "style": "model",
            "eval": "multiple_choice",
            "ground_truth": 3,
            "choices": ["a", "b", "c", "d"],
        },
        "extra_info": {"split": "validation", "index": 0},
    }
    path = tmp_path / "validation.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    (problem,) = TASK.problems(source=str(path), split="test", size=None, seed=0)
    assert (problem.ground_truth, problem.extra["choices"]) == ("3", ["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("response", "reward", "status"),
    [("3", 1, "ok"), ("2", 0, "ok"), ("4", 0, "no_answer"), ("", 0, "no_answer")],
)
def test_judges_the_number_of_an_ending(response, reward, status):
    verdict = TASK.grade(response, "3")
    assert (verdict.reward, verdict.status) == (reward, status)


@pytest.mark.parametrize(
    ("data_source", "extra", "expected"),
    [
        ("hellaswag", {"choices": ["a", "b"]}, True),
        ("Rowan/hellaswag", {"choices": ["a", "b"]}, True),
        ("hellaswag", {}, False),
        ("gsm8k", {"choices": ["a", "b"]}, False),
        ("reward:r.py:f", {"choices": ["a", "b"]}, False),
    ],
)
def test_only_this_task_goes_by_likelihood(data_source, extra, expected):
    """Other problems may have a column of that name."""
    prompt = ({"role": "user", "content": "Q"},)
    assert has_choices(Problem("p", data_source, prompt, "1", extra=extra)) is expected


def likelihood(policy, context: str, ending: str) -> float:
    """Log-probability of an ending after a context, one token at a time."""
    ids = policy.vocabulary.tokenizer(context)["input_ids"]
    goal = policy.vocabulary.tokenizer(context + ending)["input_ids"]
    total = 0.0
    for position in range(len(ids), len(goal)):
        logits = policy.model(torch.tensor([goal[:position]])).logits[0, -1]
        total += float(logits.log_softmax(-1)[goal[position]])
    return total


@torch.no_grad()
def test_picks_the_likeliest_ending(policy, tmp_path):
    rows = [
        ROW | {"endings": ["a", "bb", "a longer ending", "x" * k + "."], "ctx_a": f"Text {k}."}
        for k in range(1, 6)
    ]
    problems = read(*rows, folder=tmp_path)
    prompts = fit_prompts(problems, policy.vocabulary, "raw", 1000)
    picked = pick_choices(policy, prompts, "raw")
    for number, problem in enumerate(problems):
        choices = problem.extra["choices"]
        totals = [likelihood(policy, problem.prompt[0]["content"], f" {c}") for c in choices]
        shares = [total / len(c) for total, c in zip(totals, choices, strict=True)]
        for name, scores in (("acc", totals), ("acc_norm", shares)):
            best = scores.index(max(scores))
            answer = picked[name][number]
            assert answer.verdict.answer == str(best)
            assert answer.verdict.reward == float(best == 3)
            assert answer.text == choices[best]
            assert sum(answer.completion.logprobs) == pytest.approx(totals[best], abs=1e-4)
    assert {a.verdict.answer for a in picked["acc"]} != {
        a.verdict.answer for a in picked["acc_norm"]
    }


def test_a_space_before_the_ending_is_the_endings(policy, tmp_path):
    """Cleaning may leave one at the end of the question; the harness moves it the same way."""
    row = ROW | {"ctx_a": "A man is sitting on a roof. [step]", "ctx_b": ""}
    (problem,) = read(row, folder=tmp_path)
    assert problem.prompt[0]["content"].endswith("roof. ")
    prompts = fit_prompts([problem], policy.vocabulary, "raw", 999)
    (answer,) = pick_choices(policy, prompts, "raw")["acc"]
    text = policy.vocabulary.tokenizer.decode(answer.completion.token_ids)
    assert text == f"  {answer.text}"


def test_in_a_chat_the_ending_follows_the_template(policy, tmp_path):
    tokenizer = copy.deepcopy(policy.vocabulary.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    chatting = replace(policy, vocabulary=replace(policy.vocabulary, tokenizer=tokenizer))
    problems = read(ROW, folder=tmp_path)
    prompts = fit_prompts(problems, chatting.vocabulary, "chat", 1000)
    (answer,) = pick_choices(chatting, prompts, "chat")["acc"]
    assert tokenizer.decode(answer.prompt.token_ids).endswith("He>")
    assert tokenizer.decode(answer.completion.token_ids) == answer.text
