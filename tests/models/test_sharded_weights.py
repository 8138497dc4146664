"""Models of which each process holds a part: opened, saved and read again."""

from pathlib import Path

import pytest
import torch

from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import (
    empty_policy,
    fill_policy,
    load_policy,
    save_model,
)
from astarpo.models.sharded import shard
from tests.support.models import small_model
from tests.support.ranks import NEEDS_RANKS, in_ranks

pytestmark = NEEDS_RANKS

CPU = torch.device("cpu")


@pytest.fixture
def folder(request, policy, tmp_path) -> Path:
    small_model(request.param).save_pretrained(tmp_path / "model")
    policy.vocabulary.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def open_shared(where, path, vocabulary, **settings):
    policy = empty_policy(str(path), where.device, vocabulary, **settings)
    shard(policy.model, where.mesh())
    fill_policy(policy, str(path), where)
    return policy


def score(policy):
    batch = policy.collate([((5, 6, 7), (8, 9, 256)), ((1, 2), tuple(range(40, 60)))])
    with torch.no_grad():
        return token_logprobs(policy.model, batch, 1.0).logprobs_BT


@pytest.mark.parametrize(
    "folder", ["llama", "gpt2", "qwen3", "gemma2", "bloom", "mixtral"], indirect=True
)
def test_opened_in_parts_it_says_what_it_says_whole(folder, policy, tmp_path):
    expected = load_policy(str(folder), CPU, policy.vocabulary)

    def work(where):
        opened = open_shared(where, folder, policy.vocabulary)
        held = sum(p.to_local().numel() for p in opened.model.parameters())
        save_model(tmp_path / f"saved-{where.size}", opened, where)
        return score(opened), held

    (first, held_0), (second, held_1) = in_ranks(2, work)
    assert torch.equal(first, second)
    assert torch.equal(first, score(expected))
    total = sum(p.numel() for p in expected.model.parameters())
    assert held_0 + held_1 == total
    assert max(held_0, held_1) < 0.6 * total
    save_model(tmp_path / "saved-1", expected)
    for file in (tmp_path / "saved-1").iterdir():
        assert (tmp_path / "saved-2" / file.name).read_bytes() == file.read_bytes(), file.name
