import logging
import re
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForTokenClassification

from astarpo.engines.branching import attention as branch_attention
from astarpo.models import packing, ways
from astarpo.models.agreement import describe_error, tell_slower
from astarpo.models.batch import collate, masked_sum
from astarpo.models.critic import critic_values
from astarpo.models.logprobs import token_logprobs
from astarpo.models.ways import before_responses
from astarpo.types import UserError
from tests.support.models import KINDS, small_model

CPU = torch.device("cpu")
WITHOUT = {"mistral", "gemma2", "bloom"}
PROMPTS = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]]
RESPONSES = [[1, 2, 30], [3, 4, 11, 12, 200, 201, 7], [13], [14, 15]]
BATCH = collate(PROMPTS, RESPONSES, pad_id=0, device=CPU)
LONG = collate([list(range(60)), [8]], [list(range(40)), [1, 2]], pad_id=0, device=CPU)


def way_of(model):
    with torch.no_grad():
        token_logprobs(model, BATCH, 1.0)
    return ways._ways[model][64]


def score(model, way):
    """Log-probs, and the gradient of something that weighs each token its own way."""
    ways._ways[model] = {64: way}
    logprobs_BT, _ = token_logprobs(model, BATCH, 0.7)
    weights_BT = torch.linspace(-1, 1, BATCH.mask_BT.numel()).view(BATCH.mask_BT.shape)
    masked_sum(logprobs_BT * weights_BT, BATCH.mask_BT).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return logprobs_BT.detach(), gradient


@pytest.mark.parametrize("kind", sorted(set(KINDS) - WITHOUT))
def test_sequences_score_the_same_packed_padded_and_alone(kind):
    model = small_model(kind)
    assert way_of(model) == "packed"
    alone, gradient = score(model, "alone")
    for way in ("packed", "padded"):
        ours, our_gradient = score(model, way)
        assert torch.allclose(ours, alone, atol=1e-5)
        assert (our_gradient - gradient).abs().max() <= 1e-5 * gradient.abs().max()


@pytest.mark.parametrize("kind", sorted(WITHOUT))
def test_models_with_another_attention_are_padded(kind):
    assert way_of(small_model(kind)) == "padded"


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_no_work_goes_into_padding(kind):
    decoder = small_model(kind).get_decoder()
    rows = []
    for layer in decoder.h if kind == "gpt2" else decoder.layers:
        layer.mlp.register_forward_hook(lambda _module, args, _out: rows.append(args[0].shape[:2]))
    hidden_NH = before_responses(decoder, BATCH, "packed")
    num_tokens = sum(map(len, PROMPTS)) + sum(map(len, RESPONSES))
    assert rows == [(1, num_tokens)] * 2
    assert len(hidden_NH) == sum(map(len, RESPONSES))


def test_sequences_do_not_see_each_other():
    model = small_model("qwen3")
    with torch.no_grad():
        together, _ = token_logprobs(model, BATCH, 1.0)
        for i, pair in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
            alone, _ = token_logprobs(model, collate(*([side] for side in pair), 0, CPU), 1.0)
            assert torch.allclose(together[i, : len(pair[1])], alone[0], atol=1e-5)


def test_a_critic_reads_packed_sequences_too():
    config = small_model("llama").config
    config.num_labels = 1
    critic = AutoModelForTokenClassification.from_config(config).eval()
    values = [critic_values(critic, BATCH)]
    assert ways._ways[critic] == {64: "packed"}
    ways._ways[critic] = {64: "alone"}
    values.append(critic_values(critic, BATCH))
    assert torch.allclose(*values, atol=1e-5)
    assert (values[0][~BATCH.mask_BT] == 0).all()


def test_the_models_attention_is_its_own_again_after_an_error():
    model = small_model("llama")
    before = model.config._attn_implementation
    model.model.layers[0].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packing.run_packed(model, BATCH)
    assert model.config._attn_implementation == before != packing.NAME


def test_a_critic_that_says_0_everywhere_is_not_taken_for_one_that_packs():
    config = small_model("mistral").config
    config.num_labels = 1
    critic = AutoModelForTokenClassification.from_config(config).eval()
    torch.nn.init.zeros_(critic.score.weight)
    critic_values(critic, LONG)
    assert ways._ways[critic] == {128: "padded"}


def test_on_a_gpu_a_way_that_fails_is_a_warning_with_its_reason(caplog):
    caplog.set_level(logging.INFO)
    for device in ("cpu", "cuda"):
        model = SimpleNamespace(device=torch.device(device))
        tell_slower(model, describe_error(ValueError("a window\nand more")), "they are padded")
    said = [(record.levelname, record.message) for record in caplog.records]
    text = "SimpleNamespace: ValueError: a window; they are padded"
    assert said == [("INFO", text), ("WARNING", text)]


def test_the_latest_way_is_known():
    model = small_model("mistral")
    assert ways.latest_way(model) is None
    way_of(model)
    assert ways.latest_way(model) == "padded"


@pytest.mark.parametrize("names", [("packed",), ("packed", "padded")])
def test_what_does_not_agree_takes_the_slower_way_and_says_by_how_much(names, monkeypatch, caplog):
    model = small_model("llama")
    for name in names:
        right = ways._RUNS[name]
        monkeypatch.setitem(ways._RUNS, name, lambda *given, right=right: right(*given) + 0.01)
    assert way_of(model) == {"packed": "padded", "padded": "alone"}[names[-1]]
    for name in names:
        pattern = rf"LlamaForCausalLM: {name} sequences are 0\.0\d+ nats a token from each alone"
        assert [r.levelname for r in caplog.records if re.match(pattern, r.message)] == ["WARNING"]


def test_attention_refuses_a_mask():
    with pytest.raises(ValueError, match="attention_mask"):
        packing.attend(*[torch.zeros(1, 1, 3, 4)] * 5)
    with pytest.raises(ValueError, match="attention_mask"):
        branch_attention.attend(*[torch.zeros(1, 1, 3, 4)] * 5)


def test_a_model_that_sees_what_it_is_to_predict_is_refused():
    model = small_model("llama")
    model.model.layers[0].register_forward_hook(
        lambda _module, _args, hidden: hidden + hidden.mean(dim=1, keepdim=True)
    )
    with pytest.raises(UserError, match=r"LlamaForCausalLM: .* depends on the tokens after it"):
        token_logprobs(model, BATCH, 1.0)
