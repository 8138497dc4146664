"""Each verb opens its engine once, tells it of updates, and closes it."""

import json

import pytest

from astarpo import engines
from astarpo.config import EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.engines.hf import HFEngine
from astarpo.models import policy as policies
from astarpo.stages import estimate as stage_1
from astarpo.stages.evaluate import evaluate
from astarpo.stages.train import train
from astarpo.types import Completion


@pytest.fixture
def life(monkeypatch):
    """What happens to engines, in order."""
    events = []

    class Spy(HFEngine):
        def __enter__(self):
            events.append("open")
            return self

        def __exit__(self, *error):
            events.append("close")

        def generate(self, *given):
            events.append("generate")
            return super().generate(*given)

        def sync(self, policy):
            events.append("sync")
            super().sync(policy)

    monkeypatch.setitem(engines.ENGINES, "hf", Spy)
    return events


class Elsewhere:
    """An engine with weights of its own, that answers every prompt by one digit."""

    modules = ()

    def __init__(self, vocabulary):
        self.facts = {"name": "elsewhere", "version": "1", "dtype": "bfloat16"}
        self.closed = False
        self._digits = vocabulary.tokenizer("0123456789")["input_ids"]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True

    def generate(self, requests, sampling, on_progress=None):
        if on_progress:
            on_progress(len(requests))
        tokens = [(self._digits[request.seed % 10], 256) for request in requests]
        return [Completion(ids, (-2.0, -1.0), "stop") for ids in tokens]

    def sync(self, policy):
        raise AssertionError("nothing is trained in stage 1")


def test_stage_1_loads_no_weights_for_an_engine_that_has_its_own(
    policy, policy_path, problems_path, tmp_path, monkeypatch
):
    engine = Elsewhere(policy.vocabulary)
    monkeypatch.setattr(stage_1, "load_engine", lambda *_: engine)
    monkeypatch.setattr(policies, "load_part", None)  # which alone reads weights
    config = EstimateConfig(
        model=str(policy_path), problems=problems_path, out=tmp_path / "values", samples=4,
        max_new_tokens=8, device="cpu",
    )  # fmt: skip
    table = stage_1.estimate(config)
    assert engine.closed
    assert table.manifest["engine"] == engine.facts
    rows = table.samples(["text", "reward"]).to_pylist()
    assert {row["text"] for row in rows} <= set("0123456789")
    assert 0 < sum(row["reward"] for row in rows) < len(rows)


def test_stage_1_records_its_engine(table_path):
    facts = json.loads((table_path / "manifest.json").read_text())["engine"]
    assert (facts["name"], facts["dtype"]) == ("hf", "float32")
    assert facts["version"].startswith("transformers ")


def test_training_opens_one_engine_and_syncs_it_after_each_update(
    policy_path, problems_path, table_path, tmp_path, life
):
    config = TrainConfig(
        model=str(policy_path), problems=problems_path, values=table_path, out=tmp_path / "run",
        steps=3, prompts_per_step=4, device="cpu",
    )  # fmt: skip
    train(config)
    assert life == ["open", *["generate", "sync"] * 3, "close"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["engine"]["name"] == "hf"
    assert (summary["engine"]["decoding"], summary["engine"]["forward"]) == ("stepwise", "packed")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert {(row["decoding"], row["forward"]) for row in rows} == {("stepwise", "packed")}


def test_an_evaluation_opens_one_engine(policy_path, problems_path, tmp_path, life):
    settings = {"model": str(policy_path), "problems": problems_path, "out": tmp_path / "e.json"}
    result = evaluate(EvaluateConfig(**settings, samples=2, max_new_tokens=8, device="cpu"))
    assert life == ["open", "generate", "generate", "close"]
    assert result["engine"]["decoding"] == "stepwise"


def test_a_suite_opens_one_engine_for_all_benchmarks(policy_path, tmp_path, life):
    for name in ("aime24", "math500"):
        rows = [{"problem": f"Q{i}", "answer": "25", "solution": r"\boxed{025}"} for i in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"model": str(policy_path), "suite": "paper", "benchmarks": "aime24,math500"}
    settings |= {"suite_sources": tmp_path, "out": tmp_path / "scores.json"}
    result = evaluate(EvaluateConfig(**settings, max_new_tokens=8, device="cpu"))
    assert len(result["benchmarks"]) == 2
    assert (life.count("open"), life.count("close"), life[-1]) == (1, 1, "close")
    assert result["engine"]["name"] == "hf"
