import copy
from dataclasses import replace

import pytest
import torch

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models.batch import collate
from astarpo.models.fp32_head import Float32Linear, take_float32_head
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import load_policy, make_policy, round_linears
from astarpo.stages.warm_start import build_policy
from astarpo.types import UserError

SEQUENCES = [((65, 66, 67), tuple(range(70 + i, 100 + i))) for i in range(6)]


@pytest.fixture
def in_bf16():
    """A policy of logits up to about 8, computed in bfloat16, with and without the layer."""
    model = build_policy(hidden_size=64, layers=2, heads=2, seed=0).model
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(15)  # tied to the output layer
    vocabulary = build_policy(hidden_size=8, layers=1, heads=1, seed=0).vocabulary
    sides = []
    for fp32_head in (False, True):
        policy = make_policy(copy.deepcopy(model), vocabulary, trainable=True)
        if fp32_head:
            take_float32_head(policy.model)
        sides.append(replace(policy, autocast_dtype=torch.bfloat16))
    return sides


def logprobs(policy, sequences):
    prompts, responses = zip(*sequences, strict=True)
    batch = collate(prompts, responses, 0, policy.device)
    with policy.autocast():
        return token_logprobs(policy.model, batch, 1.0).logprobs_BT[batch.mask_BT]


def test_logits_are_not_rounded(in_bf16):
    plain, exact = in_bf16
    seen = []
    for policy in in_bf16:
        with policy.autocast():
            seen.append(policy.model(torch.tensor([[65, 66, 67]])).logits)
    assert [logits.dtype for logits in seen] == [torch.bfloat16, torch.float32]
    hidden = {}
    hook = exact.model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: hidden.update(states=args[0])
    )
    with exact.autocast():
        exact.model(torch.tensor([[65, 66, 67]]))
    hook.remove()
    weight = exact.model.get_output_embeddings().weight
    assert torch.equal(seen[1], hidden["states"].float() @ weight.T)
    assert plain.model.get_output_embeddings().weight is plain.model.get_input_embeddings().weight
    assert weight is exact.model.get_input_embeddings().weight  # still tied


def test_engine_and_trainer_differ_less(in_bf16):
    apart = []
    for policy in in_bf16:
        requests = [Request((65 + i, 66), i) for i in range(16)]
        done = HFEngine(policy, 16).generate(requests, Sampling(40))
        given = [(r.prompt_ids, c.token_ids) for r, c in zip(requests, done, strict=True)]
        engines = torch.tensor([x for c in done for x in c.logprobs])
        apart.append(float((logprobs(policy, given).detach() - engines).abs().mean()))
    assert apart[1] < apart[0]


def test_gradients_reach_weights_and_hidden_states(in_bf16):
    _, exact = in_bf16
    logprobs(exact, SEQUENCES).sum().backward()
    gradients = [p.grad for p in exact.model.parameters()]
    assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


def test_a_frozen_model_gives_the_same_to_the_bit(in_bf16):
    _, exact = in_bf16
    frozen = make_policy(copy.deepcopy(exact.model), exact.vocabulary)
    round_linears(frozen.model, torch.bfloat16)
    frozen = replace(frozen, autocast_dtype=torch.bfloat16)
    assert frozen.model.get_output_embeddings().weight.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(logprobs(frozen, SEQUENCES), logprobs(exact, SEQUENCES))


def test_a_copy_has_a_layer_of_its_own(in_bf16):
    _, exact = in_bf16
    copied = copy.deepcopy(exact.model)
    before = exact.model(torch.tensor([[65]])).logits
    with torch.no_grad():
        copied.get_output_embeddings().weight.zero_()
    assert torch.equal(exact.model(torch.tensor([[65]])).logits, before)
    assert not copied(torch.tensor([[65]])).logits.any()


def test_a_model_is_loaded_with_it(policy_path):
    device = torch.device("cpu")
    loaded = load_policy(str(policy_path), device, fp32_head=True)
    assert isinstance(loaded.model.get_output_embeddings(), Float32Linear)
    with pytest.raises(UserError, match="fp32_head: the output layer of Qwen2ForCausalLM is no"):
        take_float32_head(loaded.model)  # it has one already
