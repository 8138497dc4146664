"""What an update holds: tracing against the closed form, against depth, against real processes."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from astarpo.config import TrainConfig
from astarpo.planning import tracing
from astarpo.planning.shape import ModelShape
from astarpo.planning.tracing import Load, trace_anew

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # whose files import each other

import plan_memory


def shape(layers: int, *, tied: bool = True) -> ModelShape:
    config = Qwen2Config(
        vocab_size=5000, hidden_size=64, intermediate_size=192, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    return ModelShape("small", config)


def settings(**changes) -> TrainConfig:
    own = {"model": "m", "problems": "p", "values": "v", "out": "o", "micro_batch_tokens": 512}
    return TrainConfig(**own | changes)


LOAD = Load(prompt_tokens=32, answer_tokens=96, compute=None)
BF16 = Load(prompt_tokens=32, answer_tokens=96, compute=torch.bfloat16)


def test_states_are_those_of_the_arithmetic():
    model = shape(3)
    n, attention = model.num_parameters, 2 * 64 * 64 + 2 * 64 * 32 + 64 + 2 * 32
    assert n == 5000 * 64 + 3 * (attention + 3 * 64 * 192 + 2 * 64) + 64
    peaks = trace_anew(model, settings(), LOAD)
    assert peaks["optimizer"]["weights"] == 4 * n
    assert peaks["optimizer"]["gradients"] == 4 * n
    assert peaks["optimizer"]["reference"] == 4 * n
    assert peaks["optimizer"]["moments"] == 8 * n


def test_the_reference_of_a_gpu_has_linear_layers_in_bf16_and_a_head_of_its_own():
    model = shape(3)
    reference = trace_anew(model, settings(), BF16)["reference"]["reference"]
    norms = 3 * 2 * 64 + 64
    linear = model.num_parameters - 5000 * 64 - norms
    assert reference == 2 * linear + 4 * (5000 * 64 + norms) + 2 * 5000 * 64


@pytest.mark.parametrize(
    ("changes", "load"),
    [
        ({}, BF16),
        ({"gradient_checkpointing": True}, BF16),
        ({"algorithm": "ppo", "values": None}, LOAD),
    ],
)
def test_few_layers_tell_the_peak_of_many(changes, load, monkeypatch):
    def peak() -> int:
        windows = trace_anew(shape(6, tied=False), settings(**changes), load)
        return max(sum(kinds.values()) for kinds in windows.values())

    from_few = peak()
    monkeypatch.setattr(tracing, "_MOST_TRACED", 6)
    assert from_few == pytest.approx(peak(), rel=0.005)


@pytest.mark.parametrize("algorithm", ["grpo", "rebel", "rloo", "spo"])
def test_every_algorithm_can_be_traced(algorithm):
    values = "v" if algorithm == "spo" else None
    peaks = trace_anew(shape(2), settings(algorithm=algorithm, values=values), LOAD)
    assert peaks["optimizer"]["gradients"] == 4 * shape(2).num_parameters


def test_recomputed_activations_need_less_and_longer_micro_batches_more():
    def held(**changes) -> int:
        windows = trace_anew(shape(2), settings(**changes), LOAD).values()
        return max(kinds["activations"] for kinds in windows)

    kept = held()
    assert held(gradient_checkpointing=True) < 0.7 * kept
    assert held(micro_batch_tokens=1024) > 1.8 * kept


@pytest.mark.parametrize("name", plan_memory.SMALL)
def test_a_real_update_needs_what_was_planned(name):
    case = plan_memory.SMALL[name]
    assert plan_memory.planned(case) == pytest.approx(plan_memory.measured(case), rel=0.15)
