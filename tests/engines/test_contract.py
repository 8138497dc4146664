"""What every engine keeps to. An engine that is added is added to `ENGINES`, and so is tested here.

The policy is in fp32 and untrained, and its completions are compared with plain forward passes.
vLLM is tested where it is installed: `make test-vllm`.
"""

import copy
import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from astarpo.engines import ENGINES
from astarpo.engines.base import Request, Sampling
from astarpo.models.policy import make_policy
from astarpo.runtime.seeding import derive_seed
from astarpo.runtime.stopping import StopRequested, StopSignal
from astarpo.stages.warm_start import build_policy
from astarpo.types import UserError
from tests.models.test_batch import unpadded_logprobs
from tests.support.vllm import NEEDS_VLLM

# Nats between an engine's log-prob of a token and that of a forward pass, in fp32.
CLOSE = 5e-5


@pytest.fixture(scope="module")
def policy():
    return build_policy(hidden_size=64, layers=2, heads=2, seed=0)  # heads that vLLM has too


@pytest.fixture(params=[pytest.param(n, marks=NEEDS_VLLM if n == "vllm" else ()) for n in ENGINES])
def open_engine(request):
    """Opens an engine of each kind over a policy."""
    return ENGINES[request.param]


def make_requests(policy, count=24):
    texts = [f"Item {i % 7}" + " and more" * (i % 3) for i in range(count)]
    ids = policy.vocabulary.tokenizer(texts)["input_ids"]
    return [Request(tuple(ids[i]), derive_seed(0, "contract", i)) for i in range(count)]


def ids(completions):
    return [completion.token_ids for completion in completions]


def with_stop_ids(policy, stop_ids, pad_id):
    vocabulary = replace(policy.vocabulary, stop_ids=frozenset(stop_ids), pad_id=pad_id)
    return replace(policy, vocabulary=vocabulary)


def farthest(policy, requests, completions, temperature=1.0):
    """The largest distance of a log-prob from that of a plain forward pass."""
    found = 0.0
    for request, completion in zip(requests, completions, strict=True):
        given = (request.prompt_ids, completion.token_ids, temperature)
        expected, _ = unpadded_logprobs(policy.model, *given)
        pairs = zip(completion.logprobs, expected, strict=True)
        found = max(found, *(abs(ours - theirs) for ours, theirs in pairs))
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_a_forward_pass(open_engine, policy, temperature):
    requests = make_requests(policy)
    with open_engine(policy, 16) as engine:
        done = engine.generate(requests, Sampling(40, temperature))
    assert farthest(policy, requests, done, temperature) < CLOSE


def test_a_completion_does_not_depend_on_its_company(open_engine, policy):
    requests = make_requests(policy)
    with open_engine(policy, 64) as engine:
        together = ids(engine.generate(requests, Sampling(30)))
        assert ids(engine.generate(requests, Sampling(30))) == together
    for max_sequences in (1, 5):
        with open_engine(policy, max_sequences) as engine:
            apart = ids(engine.generate(requests[::-1], Sampling(30)))
        assert apart[::-1] == together


def test_a_completion_depends_on_its_seed(open_engine, policy):
    (request,) = make_requests(policy, 1)
    requests = [replace(request, seed=seed) for seed in (*range(15), 0)]
    with open_engine(policy, 16) as engine:
        done = ids(engine.generate(requests, Sampling(20)))
    assert done[0] == done[-1]
    assert len(set(done)) == 15


def test_completions_come_in_the_order_of_their_requests(open_engine, policy):
    requests = make_requests(policy)
    with open_engine(policy, 5) as engine:
        done = engine.generate(requests, Sampling(8))
        alone = [engine.generate([request], Sampling(8))[0] for request in requests]
    assert ids(done) == ids(alone)


def test_every_stop_id_ends_a_response_and_belongs_to_it(open_engine, policy):
    # Many stop ids, so that an untrained model hits them often; the pad id is one of them.
    stop_ids = set(range(0, 258, 8))
    many = with_stop_ids(policy, stop_ids, pad_id=8)
    with open_engine(many, 16) as engine:
        done = engine.generate(make_requests(many, 64), Sampling(24))
    assert {c.finish_reason for c in done} == {"stop", "length"}
    assert len({c.token_ids[-1] for c in done} & stop_ids) > 5
    for completion in done:
        ended = completion.token_ids[-1] in stop_ids
        assert not set(completion.token_ids[:-1]) & stop_ids
        assert completion.finish_reason == ("stop" if ended else "length")
        assert ended or len(completion.token_ids) == 24
        assert len(completion.logprobs) == len(completion.token_ids)


def test_a_longer_limit_continues_the_same_completion(open_engine, policy):
    requests = make_requests(policy, 8)
    endless = with_stop_ids(policy, {999}, pad_id=0)
    with open_engine(endless, 8) as engine:
        one, short, long = (engine.generate(requests, Sampling(limit)) for limit in (1, 10, 20))
    for a, b, c in zip(one, short, long, strict=True):
        assert [len(x.token_ids) for x in (a, b, c)] == [1, 10, 20]
        assert a.token_ids == c.token_ids[:1]
        assert b.token_ids == c.token_ids[:10]
        assert {x.finish_reason for x in (a, b, c)} == {"length"}


def test_greedy_takes_the_likeliest_token(open_engine, policy):
    requests = make_requests(policy, 6)
    with open_engine(policy, 4) as engine:
        done = engine.generate(requests, Sampling(20, temperature=0.0))
    assert farthest(policy, requests, done) < CLOSE
    for request, completion in zip(requests, done, strict=True):
        theirs = policy.model.generate(
            torch.tensor([request.prompt_ids]), max_new_tokens=20, do_sample=False
        )[0, len(request.prompt_ids) :]
        assert list(completion.token_ids) == theirs.tolist()


def test_samples_follow_the_models_distribution(open_engine, policy):
    requests = [Request((65, 66), derive_seed(0, i)) for i in range(4000)]
    with torch.no_grad():
        chances = policy.model(torch.tensor([[65, 66]])).logits[0, -1].softmax(-1)
    with open_engine(policy, 4000) as engine:
        done = engine.generate(requests, Sampling(1))
    shares = torch.bincount(torch.tensor([c.token_ids[0] for c in done]), minlength=258) / 4000
    assert (shares - chances).abs().max() < 0.03


def test_no_requests_give_no_completions(open_engine, policy):
    with open_engine(policy, 8) as engine:
        assert engine.generate([], Sampling(8)) == []


def test_an_empty_prompt_is_refused(open_engine, policy):
    requests = [*make_requests(policy, 2), Request((), 0)]
    with open_engine(policy, 8) as engine, pytest.raises(ValueError, match="prompt is empty"):
        engine.generate(requests, Sampling(8))


def test_an_id_that_the_model_does_not_have_is_refused(open_engine, policy):
    requests = [*make_requests(policy, 2), Request((65, policy.vocabulary_size), 0)]
    with open_engine(policy, 8) as engine, pytest.raises(UserError, match="token id 258, and the"):
        engine.generate(requests, Sampling(8))


def test_a_long_prompt_is_completed_whole_or_refused(open_engine, policy):
    room = policy.vocabulary.context - 4
    endless = with_stop_ids(policy, {999}, pad_id=0)
    with open_engine(endless, 2) as engine:
        (done,) = engine.generate([Request((65,) * room, 0)], Sampling(4))
        assert len(done.token_ids) == 4
        longer = [Request((65,) * room, 0)], Sampling(6)
        if engine.facts["name"] == "vllm":  # which would cut it
            with pytest.raises(UserError, match="do not fit the 4096 tokens that the engine was"):
                engine.generate(*longer)
        else:
            assert len(engine.generate(*longer)[0].token_ids) == 6


def test_a_refused_request_leaves_the_engine_as_it_was(open_engine, policy):
    requests = make_requests(policy, 4)
    with open_engine(policy, 8) as engine:
        before = engine.generate(requests, Sampling(8))
        with pytest.raises(ValueError, match="empty"):
            engine.generate([*requests, Request((), 0)], Sampling(8))
        assert engine.generate(requests, Sampling(8)) == before


def test_a_signal_ends_sampling_and_leaves_nothing_behind(open_engine, policy):
    requests = make_requests(policy, 8)
    with open_engine(policy, 8) as engine:
        before = engine.generate(requests, Sampling(8))
        with StopSignal():
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(StopRequested):
                engine.generate(requests, Sampling(200))
        assert engine.generate(requests, Sampling(8)) == before


def test_progress_counts_every_completion(open_engine, policy):
    told = []
    with open_engine(policy, 5) as engine:
        engine.generate(make_requests(policy, 12), Sampling(4), told.append)
    assert sum(told) == 12


def test_after_an_update_and_sync_the_new_weights_are_sampled_from(open_engine, policy):
    trained = make_policy(copy.deepcopy(policy.model), policy.vocabulary)
    requests = make_requests(policy, 8)
    with open_engine(trained, 8) as engine:
        before = engine.generate(requests, Sampling(20))
        for parameter in trained.model.parameters():
            parameter.data *= 1.5
        with engine.resting():
            pass
        metrics = engine.sync(trained)
        after = engine.generate(requests, Sampling(20))
    assert metrics.keys() in (set(), {"sync_seconds", "sync_mean", "sync_max"})
    assert metrics.get("sync_mean", 0.0) <= 1e-5
    assert ids(before) != ids(after)
    assert farthest(policy, requests, before) < CLOSE
    assert farthest(trained, requests, after) < CLOSE


def test_an_engine_syncs_with_no_other_policy(open_engine, policy):
    other = make_policy(copy.deepcopy(policy.model), policy.vocabulary)
    with open_engine(policy, 8) as engine, pytest.raises(ValueError, match="opened with"):
        engine.sync(other)


def test_facts_are_for_the_record(open_engine, policy):
    with open_engine(policy, 8) as engine:
        opened = dict(engine.facts)
        engine.generate(make_requests(policy, 2), Sampling(4))
    assert ENGINES[opened["name"]] is open_engine
    assert opened["version"]
    assert opened["dtype"] == "float32"
    assert json.loads(json.dumps(engine.facts)) == engine.facts
    assert {**engine.facts, "decoding": None} == {**opened, "decoding": None}
