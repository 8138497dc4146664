"""Sampling on every kind of device there is, with the shipped policy."""

from dataclasses import replace
from importlib import resources

import pytest
import torch

from astarpo.engines.base import Request, Sampling
from astarpo.engines.decoding import own_way
from astarpo.engines.hf import HFEngine
from astarpo.models.batch import collate
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import load_policy

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_GPU)])
def shipped(request):
    folder = resources.files("astarpo") / "assets" / "sums"
    return load_policy(str(folder), torch.device(request.param), trainable=True)


def make_requests(policy, samples):
    texts = [f"Compute {i % 9 + 1} + 4 + {i % 5 + 1} - 3." for i in range(96 // samples)]
    prompts = [
        tuple(policy.vocabulary.tokenizer(text)["input_ids"])
        for text in texts
        for _ in range(samples)
    ]
    return [Request(prompt, seed) for seed, prompt in enumerate(prompts)]


def distances(policy, requests, done):
    """How far each log-prob of the engine is from the trainer's."""
    prompts, responses = [r.prompt_ids for r in requests], [c.token_ids for c in done]
    batch = collate(prompts, responses, policy.vocabulary.pad_id, policy.device)
    with torch.no_grad(), policy.autocast():
        logprobs_BT, _ = token_logprobs(policy.model, batch, 1.0)
    engines = torch.tensor([value for c in done for value in c.logprobs])
    return (logprobs_BT[batch.mask_BT].cpu() - engines).abs()


@pytest.mark.parametrize("samples", [1, 8])
def test_in_fp32_the_engine_gives_the_trainers_logprobs(shipped, samples):
    policy = replace(shipped, autocast_dtype=None)
    requests = make_requests(policy, samples)
    done = HFEngine(policy, 64).generate(requests, Sampling(80))
    assert distances(policy, requests, done).max() < 1e-4


@pytest.mark.parametrize("samples", [1, 8])
def test_in_bf16_the_engine_gives_the_trainers_logprobs_but_for_rounding(shipped, samples):
    policy = replace(shipped, autocast_dtype=torch.bfloat16)
    requests = make_requests(policy, samples)
    done = HFEngine(policy, 64).generate(requests, Sampling(80))
    assert distances(policy, requests, done).mean() < 0.02
    assert len({c.token_ids for c in done}) > 10


def test_every_device_decodes_by_our_own_cache(shipped):
    for policy in (replace(shipped, autocast_dtype=None), shipped):
        with policy.autocast():
            way = own_way(policy.model, policy.autocast_dtype, [(1, 2, 3), (4,)], 64)
        assert way == "stepwise"


def test_on_a_gpu_attention_is_not_cudnns(shipped):
    on_cuda = shipped.device.type == "cuda"
    assert not (on_cuda and torch.backends.cuda.cudnn_sdp_enabled())
    assert shipped.autocast_dtype == (torch.bfloat16 if on_cuda else None)
