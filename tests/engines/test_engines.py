import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from astarpo.engines import hf
from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import GenerateEngine, HFEngine
from astarpo.engines.tokens import choose_tokens
from astarpo.models.batch import collate
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import make_policy
from astarpo.runtime.seeding import derive_seed, uniforms
from astarpo.types import UserError


def make_requests(policy, count=24):
    texts = [f"Item {i % 7}" + " and more" * (i % 3) for i in range(count)]
    return [
        Request(tuple(policy.vocabulary.tokenizer(text)["input_ids"]), derive_seed(0, "test", i))
        for i, text in enumerate(texts)
    ]


def test_draws_follow_the_distribution():
    # Evenly spread draws must hit each token in proportion to its chance, to one part in n.
    n = 20000
    logits = torch.tensor([0.0, 2.0, -1.0, -math.inf, 1.0])
    draws = (torch.arange(n) + 0.5) / n
    for temperature in (1.0, 0.5):
        token_B, logprob_B = choose_tokens(
            logits.expand(n, 5), draws, Sampling(1, temperature=temperature)
        )
        chances = (logits / temperature).softmax(-1)
        shares = torch.bincount(token_B, minlength=5) / n
        assert shares.tolist() == pytest.approx(chances.tolist(), abs=2 / n)
        assert logprob_B.exp().tolist() == pytest.approx(chances[token_B].tolist(), abs=1e-6)


def test_extreme_draws_stay_on_tokens_that_can_occur():
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]]).expand(2, 4)
    draws = torch.tensor([0.0, 1 - 2**-24])
    token_B, _ = choose_tokens(logits, draws, Sampling(1))
    assert token_B.tolist() == [1, 2]


@pytest.mark.parametrize("vocabulary", [1024, 2048, 3000])
def test_draws_from_many_tokens_are_where_the_cumulative_distribution_exceeds_them(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 4 * torch.randn(7, vocabulary, generator=generator)
    logits[:, torch.randperm(vocabulary, generator=generator)[: vocabulary // 3]] = -math.inf
    logits[0, :-5] = logits[1, 5:] = -math.inf  # all at one end
    cumulative = logits.double().softmax(-1).cumsum(-1)
    for share in (0.0, 0.1, 0.5, 0.9, 1 - 2**-24):
        token_B, logprob_B = choose_tokens(logits, torch.full((7,), share), Sampling(1))
        upto = cumulative.gather(-1, token_B[:, None]).squeeze(-1)
        before = upto - logprob_B.double().exp()
        assert torch.isfinite(logprob_B).all()
        assert ((before - 1e-5 < share) & (share < upto + 1e-5)).all()
    assert token_B[0] >= vocabulary - 5
    assert token_B[1] < 5


def test_prompts_may_be_read_in_parts(policy, monkeypatch):
    requests = make_requests(policy)
    together = HFEngine(policy, 64).generate(requests, Sampling(30))
    monkeypatch.setitem(hf._READ_AT_ONCE, "cpu", 60)
    in_parts = HFEngine(policy, 64).generate(requests, Sampling(30))
    assert [c.token_ids for c in in_parts] == [c.token_ids for c in together]


def test_top_p_keeps_the_nucleus_and_renormalises():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(1000, 4)
    draws = (torch.arange(1000) + 0.5) / 1000
    token_B, logprob_B = choose_tokens(logits, draws, Sampling(1, top_p=0.75))
    assert set(token_B.tolist()) == {0, 1}
    assert logprob_B[0].exp().item() == pytest.approx(0.5 / 0.8)


def test_uniforms_are_streams_of_their_own():
    assert np.array_equal(uniforms(3, 10), uniforms(3, 20)[:10])
    assert not np.array_equal(uniforms(3, 10), uniforms(4, 10))
    many = np.concatenate([uniforms(derive_seed(0, i), 10) for i in range(2000)])
    assert many.mean() == pytest.approx(0.5, abs=0.01)
    assert many.min() >= 0
    assert many.max() < 1


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (0.0, 1.0), (1.0, 0.8)])
def test_generate_gives_the_same_completions(policy, temperature, top_p):
    sampling = Sampling(20, temperature, top_p)
    requests = make_requests(policy, 12)
    engine = GenerateEngine(policy, 5)
    done = engine.generate(requests, sampling)
    assert done == engine.generate(requests, sampling)
    expected = HFEngine(policy, 5).generate(requests, sampling)
    assert [c.token_ids for c in done] == [c.token_ids for c in expected]
    batch = collate([r.prompt_ids for r in requests], [c.token_ids for c in done], 0, policy.device)
    with torch.no_grad():
        logprobs_BT, _ = token_logprobs(policy.model, batch, temperature or 1.0)
    for completion, row in zip(done, logprobs_BT, strict=True):
        if top_p == 1:
            own = row[: len(completion.token_ids)].tolist()
            assert completion.logprobs == pytest.approx(own, abs=1e-4)
        ended = completion.token_ids[-1] in policy.vocabulary.stop_ids
        assert completion.finish_reason == ("stop" if ended else "length")
        assert ended or len(completion.token_ids) == 20


def test_generate_adds_no_penalty_that_a_model_folder_asks_for(policy):
    requests, sampling = make_requests(policy, 6), Sampling(20)
    model = copy.deepcopy(policy.model)
    model.generation_config.repetition_penalty = 9.0
    done = GenerateEngine(make_policy(model, policy.vocabulary), 8).generate(requests, sampling)
    expected = GenerateEngine(policy, 8).generate(requests, sampling)
    assert [c.token_ids for c in done] == [c.token_ids for c in expected]
    assert model.generation_config.repetition_penalty == 9.0


def test_our_own_engines_take_no_other_policy(policy):
    other = make_policy(copy.deepcopy(policy.model), policy.vocabulary)
    engine = HFEngine(policy, 8)
    engine.sync(dataclasses.replace(policy, autocast_dtype=torch.bfloat16))  # the same module
    with pytest.raises(ValueError, match="the module that it was opened with"):
        engine.sync(other)


def test_the_way_of_decoding_is_among_the_facts(policy):
    for engine, way in ((HFEngine(policy, 8), "stepwise"), (GenerateEngine(policy, 8), "generate")):
        engine.generate(make_requests(policy, 2), Sampling(4))
        assert engine.facts["decoding"] == way


def wrong(decode):
    def decode_wrongly(*given, **named):
        return [
            dataclasses.replace(c, logprobs=tuple(x - 0.01 for x in c.logprobs))
            for c in decode(*given, **named)
        ]

    return decode_wrongly


def test_sampling_that_does_not_agree_goes_on_by_a_slower_way(policy, monkeypatch, caplog):
    other = make_policy(copy.deepcopy(policy.model), policy.vocabulary)
    requests, sampling = make_requests(other, 6), Sampling(20)
    expected = GenerateEngine(other, 8).generate(requests, sampling)
    monkeypatch.setattr(HFEngine, "_step", wrong(HFEngine._step))
    done = HFEngine(other, 8).generate(requests, sampling)
    assert [c.token_ids for c in done] == [c.token_ids for c in expected]
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message.split()[3] for message in said] == ["stepwise", "cached"]
    assert all("Qwen2ForCausalLM" in message and "0.01 nats" in message for message in said)
    assert "transformers' generate" in said[-1]


def test_a_model_that_no_way_agrees_on_is_refused_by_name(policy, monkeypatch):
    other = make_policy(copy.deepcopy(policy.model), policy.vocabulary)
    monkeypatch.setattr(HFEngine, "_decode", wrong(HFEngine._decode))
    with pytest.raises(UserError, match=r"Qwen2ForCausalLM: cannot be sampled from: .* 0\.01 nats"):
        HFEngine(other, 8).generate(make_requests(other, 6), Sampling(20))
