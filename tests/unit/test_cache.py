import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from astarpo.batch import collate, token_logprobs
from astarpo.engines.base import Request, Sampling
from astarpo.engines.cache import RoomyLayer, roomy_cache
from astarpo.engines.hf import HFEngine, _survivors
from astarpo.policy import make_policy

SIZES = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
KINDS = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "mistral": {"sliding_window": 16},  # all layers slide
    "gemma2": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3": {"tie_word_embeddings": True},
    "bloom": {"n_layer": 2, "n_head": 4},  # positions from the mask
}


def small_model(kind: str, **changes) -> PreTrainedModel:
    settings = SIZES | KINDS.get(kind, {}) | changes
    config = CONFIG_MAPPING[kind](**settings, eos_token_id=256, bos_token_id=None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():  # far from uniform, so that a mistake shows
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_agrees_with_the_whole_sequence_whatever_the_model(policy, kind):
    other = make_policy(small_model(kind), policy.tokenizer)
    requests = [
        Request(tuple(policy.tokenizer(f"Item {i // 3}" + " more" * (i % 2))["input_ids"]), i)
        for i in range(24)
    ]
    done = HFEngine(other, 16).generate(requests, Sampling(40))
    assert {c.finish_reason for c in done} == {"stop", "length"}
    batch = collate([r.prompt_ids for r in requests], [c.token_ids for c in done], 0, other.device)
    with torch.no_grad():
        logprobs_BT, _ = token_logprobs(other.model, batch, 1.0)
    for completion, row in zip(done, logprobs_BT, strict=True):
        trainers = row[: len(completion.token_ids)].tolist()
        assert completion.logprobs == pytest.approx(trainers, abs=1e-4)


def test_roomy_layers_hold_what_transformers_own_hold():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = RoomyLayer(), DynamicLayer()

    def append(rows: int, tokens: int) -> None:
        keys, values = torch.randn(2, rows, 3, tokens, 4, generator=generator)
        for got, expected in zip(
            ours.update(keys, values), theirs.update(keys, values), strict=True
        ):
            assert torch.equal(got, expected)
        assert ours.get_seq_length() == theirs.get_seq_length()

    append(3, 7)
    for repeats in ([0, 0, 1, 1, 1, 2, 2, 0], [0, 1, 7, 6, 4], [0, 3, 2], [1, 1, 0]):
        for layer in (ours, theirs):
            layer.batch_select_indices(torch.tensor(repeats))
        for _ in range(25):
            append(len(repeats), 1)
    append(3, 90)


def test_a_token_does_not_copy_those_before_it():
    layer = RoomyLayer()
    layer.update(*torch.zeros(2, 2, 3, 100, 4))
    places = set()
    for _ in range(100):
        keys, _ = layer.update(*torch.zeros(2, 2, 3, 1, 4))
        places.add(keys.data_ptr())
    assert len(places) <= 4


def test_layers_that_slide_stay_transformers_own():
    kinds = [type(layer) for layer in roomy_cache(small_model("gemma2").config).layers]
    expected = [type(layer) for layer in DynamicCache(config=small_model("gemma2").config).layers]
    assert kinds == [expected[0], RoomyLayer]
    assert expected[1] is DynamicLayer


@pytest.mark.parametrize("live", [[1, 1, 1], [0, 1, 1, 0, 1], [0, 0, 1], [1, 0, 0], [0]])
def test_survivors_are_the_live_rows_and_few_move(live):
    live_B = torch.tensor(live, dtype=torch.bool)
    keep = _survivors(live_B, int(live_B.sum())).tolist()
    assert sorted(keep) == [i for i, alive in enumerate(live) if alive]
    assert all(keep[i] == i for i in range(len(keep)) if live[i])
