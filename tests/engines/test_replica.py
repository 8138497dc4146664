"""An engine on a whole copy of weights that several processes share."""

import pytest
import torch

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.engines.replica import ReplicaEngine
from astarpo.models.policy import load_policy
from astarpo.types import EngineStopped
from tests.models.test_sharded_weights import open_shared
from tests.support.ranks import NEEDS_RANKS, in_ranks

pytestmark = NEEDS_RANKS

REQUESTS = [Request((7, 8, 9, i), seed) for i in range(6) for seed in range(2)]
SAMPLING = Sampling(24)


def make(policy):
    return HFEngine(policy, 8)


def shift(model, size=0.05):
    """An update of all parameters, by what each holds."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + size)


def alone(policy_path, vocabulary, shifted):
    policy = load_policy(str(policy_path), torch.device("cpu"), vocabulary)
    if shifted:
        shift(policy.model)
    return HFEngine(policy, 8).generate(REQUESTS, SAMPLING)


def test_it_samples_what_one_process_samples_before_and_after_an_update(policy, policy_path):
    def work(where):
        opened = open_shared(where, policy_path, policy.vocabulary)
        with ReplicaEngine(opened, make, where) as engine:
            before = engine.generate(REQUESTS, SAMPLING)
            with engine.resting():
                held = sum(t.untyped_storage().nbytes() for t in engine._held.values())
                shift(opened.model)
            metrics = engine.sync(opened)
            return before, engine.generate(REQUESTS, SAMPLING), held, metrics, dict(engine.facts)

    for before, after, held, metrics, facts in in_ranks(2, work):
        assert before == alone(policy_path, policy.vocabulary, shifted=False)
        assert after == alone(policy_path, policy.vocabulary, shifted=True)
        assert before != after
        assert held == 0
        assert 0 <= metrics["sync_mean"] < 1e-5
        assert metrics["sync_seconds"] > 0
        assert facts["name"] == "hf"
        assert facts["decoding"] == "stepwise"


def test_ranks_may_sample_unequally_much(policy, policy_path):
    def work(where):
        opened = open_shared(where, policy_path, policy.vocabulary)
        with ReplicaEngine(opened, make, where) as engine:
            mine = REQUESTS if where.is_first else REQUESTS[:1]
            for _ in range(where.rank):
                engine.generate(REQUESTS, Sampling(3))
            return engine.generate(mine, SAMPLING)

    first, second = in_ranks(2, work)
    assert [c.token_ids for c in first[:1]] == [c.token_ids for c in second]


def test_where_one_ranks_copy_is_wrong_all_stop(policy, policy_path):
    def work(where):
        opened = open_shared(where, policy_path, policy.vocabulary)
        with ReplicaEngine(opened, make, where) as engine:
            shift(opened.model)
            if not where.is_first:
                engine._held = {name: t.clone() for name, t in engine._held.items()}
            with pytest.raises(EngineStopped) as caught:
                engine.sync(opened)
            return str(caught.value)

    first, second = in_ranks(2, work)
    assert first == second
    assert "the weights did not arrive; please report it" in second


def test_where_one_rank_has_no_memory_all_stop(policy, policy_path):
    def work(where):
        opened = open_shared(where, policy_path, policy.vocabulary)
        with ReplicaEngine(opened, make, where) as engine:
            if not where.is_first:
                engine._sizes["model.norm.weight"] = 1 << 60
            with engine.resting():
                pass
            with pytest.raises(RuntimeError) as caught:
                engine.sync(opened)
            return str(caught.value)

    first, second = in_ranks(2, work)
    assert "allocate" in second
    assert first.startswith("rank 1: RuntimeError: ")
    assert "allocate" in first
