"""One vLLM a rank, fed from weights that the ranks share."""

from dataclasses import replace

import pytest
import torch

from astarpo.config import TrainConfig
from astarpo.engines.base import Request, Sampling
from astarpo.engines.vllm.engine import VLLMEngine
from astarpo.engines.vllm.weights import checkpoint_weights
from astarpo.models.lora import adapt
from astarpo.models.policy import empty_policy, fill_policy, save_model
from astarpo.models.sharded import shard
from astarpo.stages.warm_start import build_policy
from astarpo.types import EngineStopped
from tests.support.ranks import NEEDS_RANKS, in_ranks
from tests.support.vllm import NEEDS_VLLM

pytestmark = [*NEEDS_VLLM, NEEDS_RANKS]

CONTEXT = 400
REQUESTS = [Request((7, 8, 9, i), seed) for i in range(4) for seed in range(2)]
SAMPLING = Sampling(16)
LORA = TrainConfig(model="m", problems="p", values="v", out="o", lora_rank=4)


@pytest.fixture(scope="module")
def policy():
    return build_policy(hidden_size=64, layers=2, heads=2, seed=0)


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "model"
    save_model(path, policy)
    return path


def opened(where, folder, vocabulary, *, lora):
    """A shared policy, with or without an adapter."""
    policy = empty_policy(str(folder), where.device, vocabulary, trainable=not lora)
    if lora:
        policy, _ = adapt(policy, LORA)
    shard(policy.model, where.mesh())
    fill_policy(policy, str(folder), where)
    return policy


def sample_alone(where, folder, vocabulary):
    """As stage 1 does, from the model's folder."""
    with VLLMEngine(replace(vocabulary, name=str(folder)), 8, context=CONTEXT) as engine:
        found = ids(engine.generate(REQUESTS[:: 1 + where.rank], SAMPLING))
    return found, where.sum(torch.ones(1)).item()


def shift(policy):
    """An update of what is trained, the same on every rank and in one process."""
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.05).add_(0.2 if policy.adapter else 0.01)


def ids(completions):
    return [completion.token_ids for completion in completions]


def sample_and_sync(where, folder, vocabulary, lora):
    policy = opened(where, folder, vocabulary, lora=lora)
    stale = None
    with VLLMEngine(policy, 8, context=CONTEXT, where=where) as engine:
        mine = REQUESTS if where.is_first else REQUESTS[:3]  # nobody waits for others
        before = ids(engine.generate(mine, SAMPLING))
        with engine.resting():
            shift(policy)
        metrics = engine.sync(policy)
        after = ids(engine.generate(mine, SAMPLING))
        if not lora:
            if where.rank == 1:  # takes all weights, and does nothing with them
                engine._load_weights = lambda policy: list(checkpoint_weights(policy))
            shift(policy)
            with pytest.raises(EngineStopped) as caught:
                engine.sync(policy)
            stale = str(caught.value)
    total = where.sum(torch.ones(1)).item()  # the ranks' group outlives vLLM
    return before, after, metrics, stale, total


@pytest.mark.parametrize("lora", [False, True], ids=["weights", "adapter"])
def test_each_rank_samples_from_shared_weights_as_an_update_leaves_them(policy, folder, lora):
    done = in_ranks(2, sample_and_sync, folder, policy.vocabulary, lora)
    (first, first_after, *_), (second, second_after, *_) = done
    assert len(first) == len(first_after) == len(REQUESTS)
    assert second == first[:3]
    assert second_after == first_after[:3]
    assert first != first_after
    for *_, metrics, stale, total in done:
        assert 0 < metrics["sync_mean"] < 1e-5
        assert total == 2
        assert lora or "weights did not arrive" in stale


def test_ranks_sample_from_a_models_folder_each_as_much_as_it_likes(policy, folder):
    (first, total), (second, _) = in_ranks(2, sample_alone, folder, policy.vocabulary)
    assert second == first[::2]
    assert total == 2
