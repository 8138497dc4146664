"""Each verb opens its engine once, tells it of updates, and closes it."""

import json

import pytest

from astarpo import engines
from astarpo.cli import main
from astarpo.config import EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.engines.hf import HFEngine
from astarpo.engines.vllm.opening import is_installed
from astarpo.models import policy as policies
from astarpo.stages import estimate as stage_1
from astarpo.stages import sampling
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
            return super().sync(policy)

        def resting(self):
            events.append("rest")
            return super().resting()

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
    monkeypatch.setattr(sampling, "load_engine", lambda *_: engine)
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
    assert life == ["open", *["generate", "rest", "sync"] * 3, "close"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["engine"]["name"] == "hf"
    assert (summary["engine"]["decoding"], summary["engine"]["forward"]) == ("stepwise", "packed")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert {(row["decoding"], row["forward"]) for row in rows} == {("stepwise", "packed")}


def test_auto_says_which_engine_it_is(policy_path, problems_path, table_path, tmp_path, caplog):
    caplog.set_level("INFO", logger="astarpo")
    settings = {"model": str(policy_path), "problems": problems_path, "values": table_path}
    settings |= {"out": tmp_path / "run", "steps": 1, "prompts_per_step": 4, "device": "cpu"}
    summary = train(TrainConfig(**settings))
    assert "engine auto: hf, since there is no GPU in use" in caplog.text
    assert summary["engine"]["name"] == "hf"
    assert "slower_because" not in summary["engine"]  # a CPU has no faster one
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["engine"] == "hf"  # and so it is when the run is repeated elsewhere
    settings |= {"steps": 2, "engine": "generate", "resume": True}
    train(TrainConfig(**settings))
    assert "engine was hf and is generate from step 2 on" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [row["engine"] for row in rows] == ["hf", "generate"]


@pytest.mark.skipif(is_installed(), reason="vLLM is installed here")
def test_vllm_that_is_not_installed_is_told_before_anything_is_written(
    policy_path, problems_path, tmp_path, capsys
):
    for words in (["estimate"], ["train", "--algorithm", "rloo"], ["evaluate"]):
        out = tmp_path / ("e.json" if words == ["evaluate"] else words[0])
        words += ["--model", policy_path, "--problems", problems_path, "--device", "cpu"]
        assert main([*map(str, words), "--out", str(out), "--engine", "vllm"]) == 2
        said = capsys.readouterr().err.strip()
        assert said == (
            "astarpo: engine vllm: vLLM is not installed; pip install 'astarpo[vllm]', or take "
            "--engine hf"
        )
        assert not out.exists()


def test_what_is_slower_on_a_gpu_has_a_reason():
    assert engines.slower_because("vllm", "cuda", installed=True) is None
    assert "pip install 'astarpo[vllm]'" in engines.slower_because("hf", "cuda", installed=False)
    assert "asked for" in engines.slower_because("generate", "cuda", installed=True)
    for engine in engines.ENGINES:
        assert engines.slower_because(engine, "cpu", installed=True) is None


def test_a_slower_engine_on_a_gpu_is_a_warning_and_recorded(policy, caplog, monkeypatch):
    monkeypatch.setattr(engines, "slower_because", lambda *_, **__: "vLLM is not installed")
    config = EstimateConfig(model="m", problems="p", out="o", engine="hf")
    with engines.open_engine(config, policy) as engine:
        assert engine.facts["slower_because"] == "vLLM is not installed"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith("engine hf: vLLM is not installed; sampling takes several")


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
