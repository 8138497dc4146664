import pytest
import torch
from transformers import AutoModelForTokenClassification

from astarpo import packing
from astarpo.batch import collate, masked_sum
from astarpo.critic import critic_values
from astarpo.logprobs import token_logprobs
from astarpo.packing import before_responses, packs_fit
from tests.unit.models import KINDS, small_model

CPU = torch.device("cpu")
WITHOUT = {"mistral", "gemma2", "bloom"}
PROMPTS = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]]
RESPONSES = [[1, 2, 30], [3, 4, 11, 12, 200, 201, 7], [13], [14, 15]]
BATCH = collate(PROMPTS, RESPONSES, pad_id=0, device=CPU)


def score(model, packed):
    """Log-probs, and the gradient of something that weighs each token its own way."""
    module = model.get_decoder()
    packing._fits[module] = packed
    logprobs_BT, _ = token_logprobs(model, BATCH, 0.7)
    weights_BT = torch.linspace(-1, 1, BATCH.mask_BT.numel()).view(BATCH.mask_BT.shape)
    masked_sum(logprobs_BT * weights_BT, BATCH.mask_BT).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return logprobs_BT.detach(), gradient


@pytest.mark.parametrize("kind", sorted(set(KINDS) - WITHOUT))
def test_packed_and_padded_sequences_score_the_same(kind):
    model = small_model(kind)
    assert packs_fit(model.get_decoder())
    (padded, padded_gradient), (packed, packed_gradient) = score(model, False), score(model, True)
    assert torch.allclose(packed, padded, atol=1e-5)
    error = (packed_gradient - padded_gradient).abs().max()
    assert error <= 1e-5 * padded_gradient.abs().max()


@pytest.mark.parametrize("kind", sorted(WITHOUT))
def test_models_with_another_attention_are_padded(kind):
    assert not packs_fit(small_model(kind).get_decoder())


def test_no_work_goes_into_padding():
    model = small_model("llama")
    assert packs_fit(model.get_decoder())
    rows = []
    model.model.layers[0].mlp.register_forward_hook(
        lambda _module, args, _output: rows.append(args[0].shape[:2])
    )
    hidden_NH = before_responses(model.get_decoder(), BATCH)
    num_tokens = sum(map(len, PROMPTS)) + sum(map(len, RESPONSES))
    assert rows == [(1, num_tokens)]
    assert len(hidden_NH) == sum(map(len, RESPONSES))


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_the_last_layer_looks_only_at_tokens_before_responses_once_attention_is_done(kind):
    model = small_model(kind)
    decoder = model.get_decoder()
    assert packs_fit(decoder)
    rows = []
    for layer in decoder.layers if kind == "qwen3" else decoder.h:
        layer.mlp.register_forward_hook(lambda _module, args, _out: rows.append(args[0].shape[1]))
    before_responses(decoder, BATCH)
    num_tokens = sum(map(len, PROMPTS)) + sum(map(len, RESPONSES))
    assert rows == [num_tokens, sum(map(len, RESPONSES))]
    model(BATCH.input_ids_BS)  # the hooks are gone
    assert rows[2:] == [BATCH.input_ids_BS.shape[1]] * 2


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
    assert packs_fit(critic)
    values = []
    for packed in (False, True):
        packing._fits[critic] = packed
        values.append(critic_values(critic, BATCH))
    assert torch.allclose(*values, atol=1e-5)
    assert (values[0][~BATCH.mask_BT] == 0).all()


def test_the_models_attention_is_its_own_again_after_an_error():
    model = small_model("llama")
    before = model.config._attn_implementation
    model.model.layers[0].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packing._run_packed(model, BATCH)
    assert model.config._attn_implementation == before != packing.NAME
