"""Training with the options that save memory: as a user runs it, killed, resumed, evaluated."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

import astarpo
from astarpo.cli import main
from astarpo.config import EvaluateConfig, TrainConfig
from astarpo.types import UserError
from tests.conftest import command, run_here
from tests.e2e.test_stages import kill_when, weights, without_costs


@pytest.fixture(scope="module")
def lora_words(train_words):
    return [*train_words, "--lora-rank", 4, "--lr", "1e-2"]


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory, lora_words):
    out = tmp_path_factory.mktemp("lora") / "run"
    done = run_here(*lora_words, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def settings(policy_path, problems_path, table_path, tmp_path):
    return {
        "model": str(policy_path), "problems": problems_path, "values": table_path,
        "out": tmp_path / "run", "steps": 2, "prompts_per_step": 8, "lr": 1e-3, "device": "cpu",
    }  # fmt: skip


def in_two_halves(settings, tmp_path, **changes):
    """The same run twice, once resumed after half of it: the weights of both."""
    settings = settings | {"steps": 4} | changes
    halves = settings | {"out": tmp_path / "halves"}
    astarpo.train(TrainConfig(**settings))
    astarpo.train(TrainConfig(**halves | {"steps": 2}))
    astarpo.train(TrainConfig(**halves, resume=True))
    return [load_file(each["out"] / "model" / "model.safetensors") for each in (settings, halves)]


def test_lora_killed_and_resumed_ends_with_the_same_bytes(lora_run, lora_words, tmp_path):
    out = tmp_path / "run"
    log = out / "metrics.jsonl"

    def five_steps() -> bool:
        return log.exists() and log.read_text().count("\n") >= 5

    kill_when(command(*lora_words, "--out", out), five_steps, signal.SIGKILL)
    assert not (out / "model").exists()
    done = run_here(*lora_words, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(lora_run)
    adapters = [run / "adapter" / "adapter_model.safetensors" for run in (out, lora_run)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    assert without_costs(out) == without_costs(lora_run)


def test_lora_leaves_adapters_in_checkpoints_and_a_plain_model(
    lora_run, policy_path, problems_path, tmp_path
):
    rows = without_costs(lora_run)
    assert rows[0]["kl"] == 0
    assert abs(rows[-1]["kl"]) > 1e-3
    assert all(abs(row["engine_kl"]) < 1e-4 for row in rows)
    for checkpoint in (lora_run / "checkpoints").iterdir():
        assert {p.name for p in checkpoint.iterdir()} == {
            "adapter", "optimizer.safetensors", "state.json",
        }  # fmt: skip
        trained = load_file(checkpoint / "adapter" / "adapter_model.safetensors")
        moments = load_file(checkpoint / "optimizer.safetensors")
        assert len(trained) == 28
        assert len(moments) == 3 * 28
    adapter = json.loads((lora_run / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (4, 8)
    assert adapter["base_model_name_or_path"] == str(policy_path)
    base, merged = (load_file(p / "model.safetensors") for p in (policy_path, lora_run / "model"))
    assert base.keys() == merged.keys()
    result = astarpo.evaluate(
        EvaluateConfig(
            model=str(lora_run / "model"), reference=str(policy_path), problems=problems_path,
            out=tmp_path / "e.json", samples=2, max_new_tokens=8, device="cpu",
        )
    )  # fmt: skip
    assert result["kl"].value != 0


def test_resume_refuses_another_rank(lora_run, lora_words, capsys):
    words = [*map(str, lora_words), "--out", str(lora_run), "--resume", "--lora-rank"]
    assert main([*words, "8"]) == 2
    assert "lora_rank was 4 and is 8" in capsys.readouterr().err


def test_ppo_trains_an_adapter_beside_a_whole_critic(settings, tmp_path):
    ppo = {"algorithm": "ppo", "values": None, "max_new_tokens": 24, "critic_lr": 1e-2}
    whole, parts = in_two_halves(settings, tmp_path, **ppo, lora_rank=2, critic_warmup_steps=1)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    runs = [settings["out"], tmp_path / "halves"]
    critics = [load_file(r / "checkpoints/step-000004/critic.safetensors") for r in runs]
    assert all(torch.equal(w, critics[1][name]) for name, w in critics[0].items())


def test_8_bit_moments_are_resumed_to_the_bit(settings, tmp_path):
    pytest.importorskip("bitsandbytes")
    whole, parts = in_two_halves(settings, tmp_path, optimizer="adamw_8bit")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    state = load_file(tmp_path / "halves/checkpoints/step-000004/optimizer.safetensors")
    assert state["model.embed_tokens.weight:state1"].dtype == torch.uint8
    assert state["model.embed_tokens.weight:step"] == 8


def test_the_reference_may_wait_elsewhere_from_any_step_on(settings, tmp_path):
    halves = settings | {"out": tmp_path / "halves"}
    astarpo.train(TrainConfig(**settings))
    astarpo.train(TrainConfig(**halves | {"steps": 1}, reference_offload=True))
    astarpo.train(TrainConfig(**halves, resume=True))
    assert weights(halves["out"]) == weights(settings["out"])
    assert without_costs(halves["out"]) == without_costs(settings["out"])


def test_a_run_older_than_a_setting_is_resumed(settings, tmp_path):
    astarpo.train(TrainConfig(**settings))
    config = settings["out"] / "config.json"
    older = json.loads(config.read_text())
    del older["optimizer"], older["lora_rank"], older["reference_offload"]
    config.write_text(json.dumps(older))
    more = settings | {"steps": 3}
    with pytest.raises(UserError, match="lora_rank was None and is 4"):
        astarpo.train(TrainConfig(**more, resume=True, lora_rank=4))
    assert astarpo.train(TrainConfig(**more, resume=True)).summary["steps"] == 3
