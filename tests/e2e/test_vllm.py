"""Every stage with vLLM: by files, killed and gone on with, with an engine that fails midway."""

import json
import signal
from pathlib import Path

import pytest

import astarpo
from astarpo.cli import main
from astarpo.config import EstimateConfig, EvaluateConfig
from astarpo.engines.vllm.engine import VLLMEngine
from astarpo.models import policy as policies
from astarpo.models.policy import save_model
from astarpo.stages.warm_start import build_policy
from astarpo.tasks.problem_set import write_problems
from astarpo.types import EngineStopped
from astarpo.values.manifest import shard_engines
from tests.conftest import command
from tests.e2e.test_resume import held_out_problems
from tests.e2e.test_stages import contents, kill_when, weights, without_costs
from tests.support.vllm import NEEDS_VLLM
from tests.tasks.test_hellaswag import ROW

pytestmark = [*NEEDS_VLLM]

STEPS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "model"
    save_model(path, build_policy(hidden_size=64, layers=2, heads=2, seed=0))
    return path


@pytest.fixture(scope="module")
def table_words(model, problems_path):
    return [
        "estimate", "--engine", "vllm", "--model", model, "--problems", problems_path,
        "--samples", 8, "--max-new-tokens", 24, "--shard-problems", 4, "--allow-truncated",
        "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def table(table_words, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("table") / "values"
    assert main([*map(str, table_words), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def run_words(model, problems_path, table, tmp_path_factory):
    held_out = tmp_path_factory.mktemp("held-out") / "test.parquet"
    write_problems(held_out, held_out_problems(0))
    return [
        "train", "--engine", "vllm", "--model", model, "--problems", problems_path,
        "--values", table, "--steps", STEPS, "--prompts-per-step", 16, "--lr", "1e-3",
        "--eval-problems", held_out, "--eval-every", 2, "--checkpoint-every", 2,
        "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(run_words, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    assert main([*map(str, run_words), "--out", str(out)]) == 0
    return out


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def failing(monkeypatch, calls: int) -> None:
    """vLLM's own step fails once so many have been made, as where a GPU is lost."""
    llm_engine = pytest.importorskip("vllm.v1.engine.llm_engine").LLMEngine
    made, step = [], llm_engine.step

    def failing_step(self):
        made.append(1)
        if len(made) == calls:
            raise RuntimeError("CUDA error: an illegal memory access\nand much more")
        return step(self)

    monkeypatch.setattr(llm_engine, "step", failing_step)


def test_stage_1_killed_halfway_ends_with_the_same_bytes(table, table_words, tmp_path):
    out = tmp_path / "values"
    words = command(*table_words, "--out", out)
    kill_when(words, lambda: len(list(out.glob("samples-*.parquet"))) > 1, signal.SIGKILL, 600)
    assert not (out / "values.parquet").exists()
    assert main([*map(str, table_words), "--out", str(out)]) == 0
    assert contents(out) == contents(table)


def test_stage_1_says_which_engine_sampled_each_shard(table, table_words, tmp_path):
    manifest = json.loads((table / "manifest.json").read_text())
    assert manifest["engine"]["name"] == "vllm"
    shards = {path.name for path in table.glob("samples-*.parquet")}
    assert shard_engines(table).keys() == shards
    assert set(shard_engines(table).values()) == {"vllm (vllm 0.32.0, float32)"}

    # Another engine draws from the same distribution: it may add to the table.
    both = tmp_path / "both"
    assert main([*map(str, table_words), "--out", str(both), "--samples", "2"]) == 0
    words = [*map(str, table_words), "--out", str(both), "--samples", "4", "--engine", "hf"]
    assert main(words) == 0
    manifest = json.loads((both / "manifest.json").read_text())
    made_by = [text.split()[0] for text in shard_engines(both).values()]
    assert sorted(made_by) == ["hf"] * 6 + ["vllm"] * 6
    assert manifest["samples"] == 4


def test_stage_1_loads_no_weights_here(model, problems_path, tmp_path, monkeypatch):
    monkeypatch.setattr(policies, "load_part", None)  # which alone reads weights
    config = EstimateConfig(
        model=str(model), problems=problems_path, out=tmp_path / "values", samples=2,
        max_new_tokens=8, device="cpu", engine="vllm",
    )  # fmt: skip
    assert len(astarpo.estimate(config).samples()) == 48


def test_stage_1_keeps_its_shards_when_the_engine_fails(
    table, table_words, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "values"
    with monkeypatch.context() as patch:
        failing(patch, 60)  # a shard takes about 24 steps
        assert main([*map(str, table_words), "--out", str(out)]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("astarpo: engine vllm failed while it sampled (RuntimeError: CUDA error")
    assert 1 <= len(list(out.glob("samples-*.parquet"))) < 6
    assert main([*map(str, table_words), "--out", str(out)]) == 0  # as it says
    assert contents(out) == contents(table)


def test_training_says_how_far_the_engine_is(run):
    rows = rows_of(run)
    assert len(rows) == STEPS
    for row in rows:
        assert row["engine"] == row["decoding"] == "vllm"
        assert 0 <= row["sync_mean"] <= 1e-5
        assert row["sync_mean"] <= row["sync_max"]
        assert 0 < row["sync_seconds"] <= row["seconds_update"]
        assert abs(row["engine_kl"]) < 1e-3  # nats of a response
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert abs(rows[-1]["kl"]) > 1e-3
    facts = summary_of(run)["engine"]
    assert (facts["name"], facts["version"], facts["dtype"]) == ("vllm", "vllm 0.32.0", "float32")
    assert len((run / "evaluations.jsonl").read_text().splitlines()) == 4  # at 0, 2, 4 and the end


def test_training_killed_and_resumed_ends_with_the_same_bytes(run, run_words, tmp_path):
    out = tmp_path / "run"
    log = out / "metrics.jsonl"
    words = command(*run_words, "--out", out)
    kill_when(words, lambda: log.exists() and log.read_text().count("\n") >= 3, signal.SIGKILL, 600)
    assert not (out / "model").exists()
    assert main([*map(str, run_words), "--out", str(out), "--resume"]) == 0
    assert weights(out) == weights(run)
    assert without_costs(out) == without_costs(run)


def test_training_saves_when_the_engine_fails(run, run_words, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    words = [*map(str, run_words), "--out", str(out), "--checkpoint-every", "100"]
    with monkeypatch.context() as patch:
        failing(patch, 40 * 3)
        assert main(words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "engine vllm failed while it sampled (RuntimeError: CUDA error" in said
    made = len(rows_of(out))
    assert 1 <= made < STEPS
    assert (out / "checkpoints" / f"step-{made:06d}" / "state.json").exists()
    assert summary_of(out)["completed"] is False
    assert "CUDA error" in summary_of(out)["reason"]
    assert main([*words, "--resume"]) == 0  # as it says
    assert weights(out) == weights(run)


def test_training_stops_when_weights_do_not_arrive(run, run_words, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    words = [*map(str, run_words), "--out", str(out)]
    loads, load = [], VLLMEngine._load_weights

    def third_is_lost(self, policy):
        loads.append(1)
        if len(loads) != 3:  # of the start, of step 1, of step 2
            load(self, policy)

    with monkeypatch.context() as patch:
        patch.setattr(VLLMEngine, "_load_weights", third_is_lost)
        assert main(words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the weights did not arrive; --engine hf samples without it" in said
    assert len(rows_of(out)) == 2
    assert "did not arrive" in summary_of(out)["reason"]
    assert main([*words, "--resume"]) == 0  # from the step that was made, with what it learnt
    assert weights(out) == weights(run)
    hf = [*words[:-1], str(tmp_path / "hf"), "--engine", "hf"]
    assert main(hf) == 0  # as it says


def test_an_adapter_is_trained_and_resumed(run_words, tmp_path):
    words = [*map(str, run_words), "--lora-rank", "4", "--lr", "1e-2", "--checkpoint-every", "1"]
    whole, halves = (str(tmp_path / name) for name in ("whole", "halves"))
    assert main([*words, "--out", whole]) == 0
    assert main([*words, "--out", halves, "--steps", "2"]) == 0
    assert main([*words, "--out", halves, "--resume"]) == 0
    assert weights(Path(halves)) == weights(Path(whole))
    assert all(row["sync_mean"] <= 1e-5 for row in rows_of(Path(whole)))
    assert abs(rows_of(Path(whole))[-1]["kl"]) > 1e-3


def test_evaluation_samples_with_it(model, run, problems_path, tmp_path):
    config = EvaluateConfig(
        model=str(run / "model"), problems=problems_path, out=tmp_path / "e.json", samples=2,
        max_new_tokens=8, device="cpu", engine="vllm", reference=str(model),
    )  # fmt: skip
    result = astarpo.evaluate(config).details
    assert result["engine"]["name"] == "vllm"
    by_hf = config.model_copy(update={"engine": "hf", "out": tmp_path / "hf.json"})
    expected = astarpo.evaluate(by_hf).details
    greedy = "pass_at_1"  # which depends on no random numbers
    assert result["scores"][greedy] == expected["scores"][greedy]
    assert result["scores"]["kl"]["value"] > 0


def test_a_suite_opens_it_once(model, tmp_path, monkeypatch):
    opened, start = [], VLLMEngine.__init__

    def counted(self, *given, **settings):
        opened.append(1)
        start(self, *given, **settings)

    monkeypatch.setattr(VLLMEngine, "__init__", counted)
    for name in ("aime24", "math500"):
        rows = [{"problem": f"Q{i}", "answer": "25", "solution": r"\boxed{025}"} for i in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "hellaswag.jsonl").write_text(json.dumps(ROW))
    result = astarpo.evaluate(
        EvaluateConfig(
            model=str(model), suite="paper", benchmarks="aime24,math500,hellaswag",
            suite_sources=tmp_path, out=tmp_path / "scores.json", max_new_tokens=8, device="cpu",
            engine="vllm",
        )
    ).details  # fmt: skip
    assert result["engine"]["name"] == "vllm"
    assert len(result["benchmarks"]) == 3
    assert len(opened) == 1


def test_a_prompt_that_leaves_no_room_is_refused(model, problems_path, tmp_path, capsys):
    words = ["estimate", "--engine", "vllm", "--model", str(model), "--problems"]
    words += [str(problems_path), "--out", str(tmp_path / "v"), "--device", "cpu"]
    assert main([*words, "--max-new-tokens", "4090"]) == 2
    assert "do not fit the context" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


def test_engine_failures_are_no_mistake_of_the_users():
    assert not issubclass(EngineStopped, ValueError)
