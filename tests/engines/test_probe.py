"""The probe, on engines that go on with old weights in one way or another."""

import copy
from dataclasses import replace

import pytest
import torch

from astarpo.engines.hf import HFEngine
from astarpo.engines.probe import Probe
from astarpo.models.policy import make_policy
from astarpo.types import EngineStopped


@pytest.fixture
def sides(policy):
    """The policy that is trained, and what an engine samples from in its place."""
    return [make_policy(copy.deepcopy(policy.model), policy.vocabulary) for _ in range(2)]


def shift(policy, size):
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(1 + size)


def test_log_probs_of_a_policy_itself_agree(policy):
    metrics = Probe(HFEngine(policy, 8), policy).check(policy)
    assert 0 <= metrics["sync_mean"] <= metrics["sync_max"] < 1e-5


def test_a_copy_that_follows_passes_each_time(sides):
    trained, copied = sides
    probe = Probe(HFEngine(copied, 8), trained)
    for size in (0.0, 0.0, 0.01, 1e-5, -0.02):
        for side in sides:
            shift(side, size)
        probe.check(trained)


@pytest.mark.parametrize("size", [0.01, 2e-5])
def test_a_copy_that_stays_is_refused_however_small_the_update(sides, size):
    trained, copied = sides
    probe = Probe(HFEngine(copied, 8), trained)
    probe.check(trained)
    shift(trained, size)
    with pytest.raises(EngineStopped, match=r"to the bit what they were before .* did not arrive"):
        probe.check(trained)


def test_a_copy_of_something_else_is_refused_with_its_distance(sides):
    trained, copied = sides
    shift(copied, 0.01)
    with pytest.raises(EngineStopped, match="nats a token from the policy") as caught:
        Probe(HFEngine(copied, 8), trained).check(trained)
    assert "where float32 explains 1e-05" in str(caught.value)


def test_log_probs_that_are_no_numbers_are_refused(policy):
    class Broken(HFEngine):
        def generate(self, requests, sampling, on_progress=None):
            done = super().generate(requests, sampling)
            return [replace(c, logprobs=(float("nan"),) * len(c.logprobs)) for c in done]

    with pytest.raises(EngineStopped, match="nan nats"):
        Probe(Broken(policy, 8), policy).check(policy)


def test_an_update_below_rounding_is_no_reason_to_stop(sides):
    trained, copied = sides
    probe = Probe(HFEngine(copied, 8), trained)
    probe.check(trained)
    shift(trained, 1e-8)  # changes nothing in float32
    probe.check(trained)


@pytest.mark.parametrize("context", [2, 5, 40, 300, 4096])
def test_prompts_fit_the_context(policy, context):
    asked = []

    class Watched(HFEngine):
        def generate(self, requests, sampling, on_progress=None):
            asked.extend(len(r.prompt_ids) + sampling.max_new_tokens for r in requests)
            return super().generate(requests, sampling)

    Probe(Watched(policy, 8), policy, context).check(policy)
    assert max(asked) == min(context, 288)
    assert min(asked) >= 2
