import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models import head
from astarpo.models.batch import collate, masked_sum
from astarpo.models.head import is_plain
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.models.vocabulary import Vocabulary
from tests.models.test_batch import unpadded_logprobs
from tests.support.models import small_model

PROMPTS = [[5, 6, 7], [8], [9, 10]]
RESPONSES = [[1, 2, 30], [3, 4, 11, 12, 200, 201, 7], [13]]
BATCH = collate(PROMPTS, RESPONSES, pad_id=0, device=torch.device("cpu"))
KINDS = {"llama": {}, "qwen3": {}, "gpt2": {}, "gemma2": {}, "cohere": {"logit_scale": 0.5}}
CAPPED = {"gemma2", "cohere"}


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest floating-point tensor made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.largest = max(self.largest, tensor.numel())
        return result


def differentiate(model, batch):
    """Scores tokens and adds the gradient of something that weighs each token its own way."""
    scores = token_logprobs(model, batch, 0.7, entropy=True)
    weights_BT = torch.linspace(-1, 1, batch.mask_BT.numel()).view(batch.mask_BT.shape)
    masked_sum(scores.logprobs_BT * weights_BT, batch.mask_BT).sum().backward()
    return scores


def take_gradient(model):
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return gradient


def test_whole_logits_are_told_of(caplog):
    caplog.set_level("INFO")
    is_plain(small_model("gemma2"))
    assert "Gemma2ForCausalLM: its logits are more than" in caplog.text
    assert "those of a whole micro-batch are held at once" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_models_own_in_chunks_or_not(kind, monkeypatch):
    model = small_model(kind, **KINDS[kind])
    assert is_plain(model) == (kind not in CAPPED)
    scored, gradients = [], []
    for size in (1 << 27, 3 * 258, 258):
        monkeypatch.setattr(head, "MAX_LOGITS", size)
        scored.append(differentiate(model, BATCH))
        gradients.append(take_gradient(model))
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        logprobs, entropy = unpadded_logprobs(model, prompt, response, temperature=0.7)
        for scores in scored:
            got = scores.logprobs_BT[i, : len(response)].tolist()
            assert got == pytest.approx(logprobs, abs=1e-5)
            got = scores.entropy_BT[i, : len(response)].tolist()
            assert got == pytest.approx(entropy, abs=1e-5)
    # The same without this module: the whole logits of one sequence after the other.
    weights_BT = torch.linspace(-1, 1, BATCH.mask_BT.numel()).view(BATCH.mask_BT.shape)
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        logits_SV = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        logprobs_TV = (logits_SV / 0.7).log_softmax(-1)
        chosen_T = logprobs_TV[torch.arange(len(response)), torch.tensor(response)]
        (chosen_T * weights_BT[i, : len(response)]).sum().backward()
    plain = take_gradient(model)
    for gradient in gradients:
        assert (gradient - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_logits_larger_than_a_chunk_are_never_held(monkeypatch):
    vocabulary, tokens = 5000, 300
    model = small_model("llama", vocab_size=vocabulary)
    batch = collate([[1]], [list(range(tokens))], pad_id=0, device=torch.device("cpu"))
    largest = {}
    for chunk in (10, tokens):
        monkeypatch.setattr(head, "MAX_LOGITS", chunk * vocabulary)
        with LargestTensor() as mode:
            differentiate(model, batch)
        largest[chunk] = mode.largest
    assert largest[tokens] == tokens * vocabulary
    assert largest[10] == 32 * vocabulary  # the output layer's own gradient


def test_nothing_is_computed_for_padding():
    model = small_model("llama")
    rows = []
    model.get_output_embeddings().register_forward_hook(
        lambda _module, args, _output: rows.append(args[0].numel() // 32)
    )
    token_logprobs(model, BATCH, 1.0)  # which tries the model out, once
    rows.clear()
    token_logprobs(model, BATCH, 1.0)
    assert rows == [sum(map(len, RESPONSES))]


def test_models_without_an_output_layer_of_their_own_take_the_plain_path():
    model = small_model("llama")
    model.set_output_embeddings(nn.Sequential(model.get_output_embeddings()))
    assert not is_plain(model)
    token_logprobs(model, BATCH, 1.0)


@pytest.mark.parametrize("kind", sorted(CAPPED))
def test_caps_and_scales_are_seen_though_logits_are_small_or_zero(kind):
    for size in (0.0, 1e-3):
        model = small_model(kind, **KINDS[kind])
        model.get_output_embeddings().weight.data *= size
        assert not is_plain(model)


def test_a_vocabulary_may_have_fewer_tokens_than_are_tried():
    model = small_model("llama", vocab_size=5)
    assert is_plain(model)
    prompts, policy = [(1, 2), (3,)], Policy(model, Vocabulary(None, frozenset({4}), pad_id=0))
    done = HFEngine(policy, 2).generate([Request(p, 0) for p in prompts], Sampling(8))
    batch = collate(prompts, [completion.token_ids for completion in done], 0, model.device)
    scored_BT, _ = token_logprobs(model, batch, 1.0)
    for completion, row_T in zip(done, scored_BT.tolist(), strict=True):
        assert completion.logprobs == pytest.approx(row_T[: len(completion.token_ids)], abs=1e-5)


def test_a_gpu_with_room_takes_larger_chunks():
    sizes = [head.max_logits(free << 30) for free in (1, 3, 4, 8, 14, 60)]
    assert sizes == [1 << 27] * 3 + [1 << 28, 1 << 29, 1 << 29]
    assert head.max_logits(None) == 1 << 27
    assert all(
        size * 14 * 2 <= free << 30 for size, free in zip(sizes[3:], (8, 14, 60), strict=True)
    )
