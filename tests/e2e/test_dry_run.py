import pytest

from astarpo.cli import main
from astarpo.config.documents import VERBS
from astarpo.verbs import verb_home


def dry(capsys, *words) -> str:
    assert main([*map(str, words), "--dry-run"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_what_a_dry_run_reads_beside_it(verb):
    home = verb_home(verb)
    assert callable(getattr(home, verb.replace("-", "_")))
    assert callable(home.prepare)
    assert callable(home.preview)


def test_data(capsys, tmp_path):
    out = dry(capsys, "data", "multiply", "--limit", 3, "--out", tmp_path / "p.parquet")
    assert "3 problems; the first, multiply/train/" in out
    assert "user: Compute " in out
    assert not list(tmp_path.iterdir())


def test_estimate_counts_samples_and_shows_the_first_prompt(
    capsys, tmp_path, policy_path, problems_path
):
    words = ["estimate", "--model", policy_path, "--problems", problems_path]
    out = dry(capsys, *words, "--samples", 8, "--out", tmp_path / "v")
    assert '"samples": 8' in out
    assert "192 samples (8 each), 0 already there" in out
    assert "24 of 24 problems are used" in out
    assert "Item 0:\ntoken ids: [" in out
    assert not list(tmp_path.iterdir())


def test_estimate_and_train_know_what_is_there(
    capsys, tmp_path, estimate_words, train_words, table_path
):
    out = dry(capsys, *estimate_words, "--out", table_path, "--samples", 10)
    assert "240 samples (10 each), 192 already there" in out
    out = dry(capsys, *train_words, "--out", tmp_path / "r")
    assert "24 problems after filter none, mean V* 0." in out
    assert "8 steps of 16 prompts, 1 samples each, 2 updates a step" in out
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "verb",
    [
        "run gsm8k-small --source digits.jsonl",
        "run gsm8k --model {policy} --source digits.jsonl",
        "run gsm8k-16gb --model {policy} --source digits.jsonl",
        "demo",
    ],
)
def test_run_shows_every_stage(capsys, tmp_path, verb, policy_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f'{{"question": "Item {i}", "answer": "#### {i}"}}\n' for i in range(32)]
    (tmp_path / "digits.jsonl").write_text("".join(rows))
    out = dry(capsys, *verb.format(policy=policy_path).split(), "--out", tmp_path / "o")
    for stage in ("train_data", "evaluate_reference", "estimate", "train", "evaluate_trained"):
        assert f"\n{stage}: {{" in out
    assert not (tmp_path / "o").exists()


def test_evaluate_and_warm_start(capsys, tmp_path, policy_path, problems_path):
    out = ["--out", tmp_path / "o.json"]
    words = ["evaluate", "--model", policy_path, *out]
    text = dry(capsys, *words, "--problems", problems_path, "--samples", 2)
    assert "24 greedy answers and 48 samples" in text
    text = dry(capsys, "warm-start", "--problems", problems_path, *out, "--steps", 7)
    assert "7 updates on 24 worked solutions" in text
    (tmp_path / "aime24.jsonl").write_text('{"problem": "q", "answer": "025"}\n')
    suite = ["--suite", "paper", "--benchmarks", "aime24", "--suite-sources", tmp_path]
    assert "suite paper: aime24 (1 problems)" in dry(capsys, *words, *suite)


def test_mistakes_are_found_dry_too(capsys, tmp_path):
    assert main(["estimate", "--model", "m", "--problems", "none", "--out", "o", "--dry-run"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_export(capsys, tmp_path, problems_path, table_path):
    words = ["export", table_path, "--problems", problems_path, "--out", tmp_path / "x.parquet"]
    assert "24 of 24 problems have samples" in dry(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_estimate_in_rounds_knows_its_first(capsys, tmp_path, policy_path, problems_path):
    words = ["estimate", "--model", policy_path, "--problems", problems_path, "--out", tmp_path]
    out = dry(capsys, *words, "--estimator", "shrunk", "--budget-samples", 100)
    assert "first round: 48 samples (2 each), 0 already there" in out
