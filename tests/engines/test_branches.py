from functools import partial

import pytest
import torch
from transformers import DynamicCache

from astarpo.engines.base import Request, Sampling
from astarpo.engines.branching.attention import NAME
from astarpo.engines.branching.cache import BranchingCache, survivors
from astarpo.engines.decoding import own_way, read
from astarpo.engines.hf import HFEngine
from astarpo.models.attention import attending
from astarpo.models.batch import collate
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import make_policy
from tests.support.models import KINDS, small_model

WITHOUT = {"mistral", "gemma2", "bloom"}
PROMPTS = torch.tensor([[1, 2, 3, 4], [0, 0, 5, 6], [0, 7, 8, 9]])
MASK = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]])


def way_of(model):
    return own_way(model, None, [(1, 2, 3), (4, 5)], 64)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_agrees_with_the_whole_sequence_whatever_the_model(policy, kind, samples):
    other = make_policy(small_model(kind), policy.vocabulary)
    assert way_of(other.model) == ("cached" if kind in WITHOUT else "stepwise")
    texts = [f"Item {i // samples}" + " more" * (i // samples % 2) for i in range(24)]
    requests = [
        Request(tuple(policy.vocabulary.tokenizer(text)["input_ids"]), i)
        for i, text in enumerate(texts)
    ]
    done = HFEngine(other, 16).generate(requests, Sampling(40))
    assert {c.finish_reason for c in done} == {"stop", "length"}
    batch = collate([r.prompt_ids for r in requests], [c.token_ids for c in done], 0, other.device)
    with torch.no_grad():
        logprobs_BT, _ = token_logprobs(other.model, batch, 1.0)
    for completion, row in zip(done, logprobs_BT, strict=True):
        trainers = row[: len(completion.token_ids)].tolist()
        assert completion.logprobs == pytest.approx(trainers, abs=1e-4)


@pytest.mark.parametrize("prompt_of", [[0, 1, 2], [0, 0, 0, 1, 2, 2], [2, 0, 2, 1, 0, 2, 2]])
@torch.no_grad()
def test_branches_give_the_logits_of_transformers_own_cache(prompt_of):
    model = small_model("qwen3")
    generator = torch.Generator().manual_seed(0)
    prompt_B = torch.tensor(prompt_of)
    theirs, shared = DynamicCache(config=model.config), DynamicCache(config=model.config)
    positions = (MASK.cumsum(-1) - 1).clamp(min=0)
    for cache in (theirs, shared):
        read(model, PROMPTS, MASK, positions, cache)
    ours = BranchingCache(shared, MASK, prompt_B, None)
    theirs.batch_select_indices(prompt_B)
    mask_BL = MASK[prompt_B]
    for step in range(60):
        if step % 12 == 11 and len(mask_BL) > 1:  # rows end, in an order of their own
            keep = torch.randperm(len(mask_BL), generator=generator)[: len(mask_BL) - 1]
            for cache in (theirs, ours):
                cache.batch_select_indices(keep)
            mask_BL = mask_BL[keep]
        mask_BL = torch.nn.functional.pad(mask_BL, (0, 1), value=1)
        ids_B1 = torch.randint(1, 250, (len(mask_BL), 1), generator=generator)
        position_B1 = mask_BL.sum(-1, keepdim=True) - 1
        expected = read(model, ids_B1, mask_BL, position_B1, theirs)
        ours.open_column()
        assert ours.get_seq_length() == theirs.get_seq_length() - 1
        with attending(model, NAME):
            got = read(model, ids_B1, None, position_B1, ours)
        assert torch.allclose(got, expected, atol=1e-4)


@torch.no_grad()
def test_a_prompt_is_held_once_and_a_token_does_not_copy_those_before_it():
    model = small_model("llama")
    cache = DynamicCache(config=model.config)
    read(model, PROMPTS, MASK, (MASK.cumsum(-1) - 1).clamp(min=0), cache)
    prompt_B = torch.arange(3).repeat_interleave(5)
    cache = BranchingCache(cache, MASK, prompt_B, None)
    layer = cache.layers[0]
    assert [len(states) for states in layer.prompts] == [3, 3]
    places = set()
    for _ in range(100):
        cache.open_column()
        keys, values = layer.update(*torch.zeros(2, 15, 2, 1, 8))
        places.add(keys.data_ptr())
    assert keys.shape == values.shape == (15, 2, 100, 8)
    assert len(places) <= 6
    cache.batch_select_indices(torch.tensor([14, 1, 2]))  # none of the second prompt
    assert [len(states) for states in layer.prompts] == [2, 2]


@pytest.mark.parametrize(
    "odd", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}, {"sliding_window": 8}]
)
def test_another_attention_is_not_taken_for_ours(odd):
    model = small_model("llama")
    assert way_of(model) == "stepwise"
    model = small_model("llama")
    attention = model.model.layers[1].self_attn
    attention.forward = partial(attention.forward, **odd)
    assert way_of(model) != "stepwise"


@pytest.mark.parametrize("live", [[1, 1, 1], [0, 1, 1, 0, 1], [0, 0, 1], [1, 0, 0], [0]])
def test_survivors_are_the_live_rows_and_few_move(live):
    live_B = torch.tensor(live, dtype=torch.bool)
    keep = survivors(live_B, int(live_B.sum())).tolist()
    assert sorted(keep) == [i for i, alive in enumerate(live) if alive]
    assert all(keep[i] == i for i in range(len(keep)) if live[i])
