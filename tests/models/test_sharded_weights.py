"""Models of which each process holds a part: opened, saved and read again."""

import gc
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from astarpo.models.empty import held_tensors
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import empty_policy, fill_policy, load_policy, save_model
from astarpo.models.sharded import shard
from astarpo.models.shards import write_tensors
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


@pytest.mark.parametrize("size", [2, 3])
def test_tensors_of_many_files_are_those_of_one(policy, policy_path, tmp_path, size):
    tensors = held_tensors(policy.model)
    write_tensors(tmp_path, "one", tensors)

    def work(where):
        opened = open_shared(where, policy_path, policy.vocabulary)
        parts = held_tensors(opened.model)
        return [p.name for p in write_tensors(tmp_path, "many", parts, where, max_bytes=20_000)]

    written = in_ranks(size, work)
    index = json.loads((tmp_path / "many.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > size
    assert sorted(name for each in written for name in each) == [
        *files,
        "many.safetensors.index.json",
    ]
    assert all(len(each) >= len(files) // size for each in written)
    total = {name: tensor for file in files for name, tensor in load_file(tmp_path / file).items()}
    one = load_file(tmp_path / "one.safetensors")
    assert total.keys() == one.keys() == index["weight_map"].keys()
    assert all(torch.equal(total[name], one[name]) for name in one)


def peak_of(work):
    """Bytes by which the memory of this process grows at most while it does something.

    Those of files that are mapped into it count as far as they are read.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmHWM")
    kept = work()
    grown = resident("VmHWM") - before
    del kept
    return grown


def own_part(parameter):
    values = parameter.detach()
    return values.to_local() if isinstance(values, DTensor) else values


def resident(name):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", status)[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_no_rank_reads_all_of_a_model(policy, tmp_path):
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "vocab_size": 80_000}
    model = small_model("qwen3", num_hidden_layers=8, tie_word_embeddings=False, **sizes)
    model.save_pretrained(tmp_path)
    policy.vocabulary.tokenizer.save_pretrained(tmp_path)
    total = sum(parameter.nbytes for parameter in model.parameters())
    assert total > 180 << 20

    def used(opened):  # transformers maps a file into memory, and reads what is asked for
        return opened, [float(own_part(p).sum()) for p in opened.model.parameters()]

    def whole(where):
        return peak_of(lambda: used(load_policy(str(tmp_path), CPU, policy.vocabulary)))

    def shared(where):
        return peak_of(lambda: used(open_shared(where, tmp_path, policy.vocabulary)))

    assert min(in_ranks(2, whole)) > 0.95 * total
    # Its own quarter, and that quarter of the file; any work takes some 20 MB besides.
    found = in_ranks(4, shared)
    assert max(found) < 0.65 * total, [each / total for each in found]
