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
        Request(tuple(policy.tokenizer(text)["input_ids"]), derive_seed(0, "test", i))
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_the_trainers(policy, temperature):
    requests = make_requests(policy)
    done = HFEngine(policy, 16).generate(requests, Sampling(40, temperature))
    batch = collate(
        [r.prompt_ids for r in requests],
        [c.token_ids for c in done],
        policy.pad_id,
        policy.device,
    )
    with torch.no_grad():
        logprobs_BT, _ = token_logprobs(policy.model, batch, temperature)
    for completion, row in zip(done, logprobs_BT, strict=True):
        trainers = row[: len(completion.token_ids)].tolist()
        assert completion.logprobs == pytest.approx(trainers, abs=1e-4)


def test_completions_do_not_depend_on_their_company(policy):
    requests = make_requests(policy)
    together = HFEngine(policy, 64).generate(requests, Sampling(30))
    for max_sequences in (1, 5):
        apart = HFEngine(policy, max_sequences).generate(requests[::-1], Sampling(30))[::-1]
        assert [c.token_ids for c in apart] == [c.token_ids for c in together]


def test_a_longer_limit_continues_the_same_completion(policy):
    requests = make_requests(policy, 8)
    short = HFEngine(policy, 8).generate(requests, Sampling(10))
    long = HFEngine(policy, 8).generate(requests, Sampling(20))
    assert all(a.token_ids == b.token_ids[:10] for a, b in zip(short, long, strict=True))


def test_every_stop_id_ends_a_response_and_belongs_to_it(policy):
    # Many stop ids, so that an untrained model hits them often; the pad id is one of them.
    many = dataclasses.replace(policy, stop_ids=frozenset(range(0, 258, 8)), pad_id=8)
    done = HFEngine(many, 16).generate(make_requests(many, 64), Sampling(24))
    assert {c.finish_reason for c in done} == {"stop", "length"}
    for completion in done:
        ended = completion.token_ids[-1] in many.stop_ids
        assert not set(completion.token_ids[:-1]) & many.stop_ids
        assert completion.finish_reason == ("stop" if ended else "length")
        assert ended or len(completion.token_ids) == 24
        assert len(completion.logprobs) == len(completion.token_ids)


def test_greedy_agrees_with_transformers_generate(policy):
    requests = make_requests(policy, 6)
    done = HFEngine(policy, 4).generate(requests, Sampling(20, temperature=0.0))
    for request, completion in zip(requests, done, strict=True):
        theirs = policy.model.generate(
            torch.tensor([request.prompt_ids]), max_new_tokens=20, do_sample=False
        )[0, len(request.prompt_ids) :]
        assert list(completion.token_ids) == theirs.tolist()


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
        ended = completion.token_ids[-1] in policy.stop_ids
        assert completion.finish_reason == ("stop" if ended else "length")
        assert ended or len(completion.token_ids) == 20


def test_generate_samples_the_models_distribution(policy):
    requests = [Request((65, 66), derive_seed(0, i)) for i in range(4000)]
    with torch.no_grad():
        chances = policy.model(torch.tensor([[65, 66]])).logits[0, -1].softmax(-1)
    done = GenerateEngine(policy, 4000).generate(requests, Sampling(1))
    shares = torch.bincount(torch.tensor([c.token_ids[0] for c in done]), minlength=258) / 4000
    assert (shares - chances).abs().max() < 0.03


def test_generate_adds_no_penalty_that_a_model_folder_asks_for(policy):
    requests, sampling = make_requests(policy, 6), Sampling(20)
    model = copy.deepcopy(policy.model)
    model.generation_config.repetition_penalty = 9.0
    done = GenerateEngine(make_policy(model, policy.tokenizer), 8).generate(requests, sampling)
    expected = GenerateEngine(policy, 8).generate(requests, sampling)
    assert [c.token_ids for c in done] == [c.token_ids for c in expected]
    assert model.generation_config.repetition_penalty == 9.0


def wrong(decode):
    def decode_wrongly(*given, **named):
        return [
            dataclasses.replace(c, logprobs=tuple(x - 0.01 for x in c.logprobs))
            for c in decode(*given, **named)
        ]

    return decode_wrongly


def test_sampling_that_does_not_agree_goes_on_by_a_slower_way(policy, monkeypatch, caplog):
    other = make_policy(copy.deepcopy(policy.model), policy.tokenizer)
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
    other = make_policy(copy.deepcopy(policy.model), policy.tokenizer)
    monkeypatch.setattr(HFEngine, "_decode", wrong(HFEngine._decode))
    with pytest.raises(UserError, match=r"Qwen2ForCausalLM: cannot be sampled from: .* 0\.01 nats"):
        HFEngine(other, 8).generate(make_requests(other, 6), Sampling(20))
