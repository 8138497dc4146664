"""Whole models in one process, and shared out over several: the same updates."""

import functools

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.device_mesh import init_device_mesh

from astarpo.models import ways
from astarpo.models.batch import collate
from astarpo.models.critic import critic_values, load_critic
from astarpo.models.logprobs import token_logprobs
from astarpo.models.sharded import shard
from astarpo.runtime.one_process import OneProcess
from astarpo.types import UserError
from tests.support.models import small_model
from tests.support.torchrun import torchrun
from tests.training.sharded_cases import CASES, CPU, results

ALGORITHMS = ["astar_po", "grpo", "rebel", "rloo", "ppo", "spo"]
EXACT = [
    name for name, case in CASES.items() if not case.bf16 and name not in ("not finite", "signal")
]
COARSE = ["bf16", "bf16 critic", "bf16, fp32 head", "bf16 lora"]
ON_TWO = [name for name in CASES if name != "copies of shards"]
ON_THREE = [*ALGORITHMS, "one micro-batch", "one answer", "copies", "not finite"]
ON_FOUR = ["copies of shards", "one answer", "bf16"]


@pytest.fixture(scope="module")
def alone(policy_path):
    @functools.cache
    def run(name):
        return results(str(policy_path), [name], OneProcess(CPU))[name]

    return run


@pytest.fixture(scope="module")
def together(policy_path, tmp_path_factory):
    @functools.cache
    def run(num_ranks):
        out = tmp_path_factory.mktemp("ranks") / "found.pt"
        names = {2: ON_TWO, 3: ON_THREE, 4: ON_FOUR}[num_ranks]
        words = ["-m", "tests.training.sharded_cases", policy_path, out, *names]
        done = torchrun(num_ranks, *words)
        assert done.status == 0, done.stderr[-4000:]
        return torch.load(out)

    return run


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    """A group of this process alone, and a mesh of it."""
    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=0, world_size=1)
    yield lambda _=None: init_device_mesh("cpu", (1, 1), mesh_dim_names=("replicate", "shard"))
    torch.distributed.destroy_process_group()


def compare(ours, theirs):
    assert ours["stopped"] is theirs["stopped"] is None
    for mine, other in zip(ours["metrics"], theirs["metrics"], strict=True):
        assert mine.keys() == other.keys()
        for key, value in other.items():
            assert mine[key] == pytest.approx(value, rel=1e-6, abs=1e-6), key
    assert ours["weights"].keys() == theirs["weights"].keys()
    for name, weight in theirs["weights"].items():
        assert (ours["weights"][name] - weight).abs().max() < 1e-6, name  # they moved by up to 1e-4


@pytest.mark.parametrize("name", ["ppo", "checkpointing", "untied", "capped", "gpt2", "lora"])
def test_sharded_on_one_rank_an_update_is_the_same_to_the_bit(name, policy_path, alone, one_rank):
    ours = results(str(policy_path), [name], OneProcess(CPU), one_rank)[name]
    theirs = alone(name)
    assert ours["metrics"] == theirs["metrics"]
    assert all(torch.equal(ours["weights"][k], w) for k, w in theirs["weights"].items())


@pytest.mark.distributed
@pytest.mark.parametrize("name", [name for name in ON_TWO if name in EXACT])
def test_two_ranks_do_what_one_process_does(name, together, alone):
    compare(together(2)[name], alone(name))


@pytest.mark.distributed
@pytest.mark.parametrize("name", [name for name in ON_THREE if name in EXACT])
def test_three_ranks_do_too_also_where_some_have_nothing_to_do(name, together, alone):
    compare(together(3)[name], alone(name))


@pytest.mark.distributed
@pytest.mark.parametrize("name", [name for name in ON_FOUR if name in EXACT])
def test_four_ranks_do_too_also_as_two_copies_of_two_shards(name, together, alone):
    compare(together(4)[name], alone(name))


@pytest.mark.distributed
@pytest.mark.parametrize(("num_ranks", "name"), [(4, "bf16"), *((2, name) for name in COARSE)])
def test_in_bf16_gradients_are_those_of_one_process_under_autocast(
    name, num_ranks, together, alone
):
    for mine, other in zip(
        together(num_ranks)[name]["metrics"], alone(name)["metrics"], strict=True
    ):
        for key in ("grad_norm", "critic_grad_norm"):
            if key in other:
                assert mine[key] == pytest.approx(other[key], rel=0.01)
        assert mine["loss"] == pytest.approx(other["loss"], abs=0.01)


@pytest.mark.distributed
def test_in_bf16_policy_and_reference_begin_equal_to_the_bit(together):
    assert together(2)["bf16, unmoved"]["metrics"][0]["kl"] == 0.0


@pytest.mark.distributed
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_all_ranks_stop_at_a_loss_that_is_not_finite(num_ranks, together, alone):
    ours, theirs = together(num_ranks)["not finite"], alone("not finite")
    assert "loss is not finite" in ours["stopped"]
    assert ours["stopped"] == theirs["stopped"]
    assert all(torch.equal(ours["weights"][k], w) for k, w in theirs["weights"].items())


@pytest.mark.distributed
def test_a_signal_to_one_rank_stops_all(together):
    assert together(2)["signal"]["stopped"] == "StopRequested()"


BATCH = collate([[1, 2, 3], [4, 5]], [[5, 6, 7], [8, 9]], 0, CPU)


def held_weights(model) -> int:
    """Bytes of weights in bf16 that a forward pass keeps for the backward pass."""
    shapes = {p.shape for p in model.parameters() if p.ndim == 2}
    shapes |= {torch.Size(shape[::-1]) for shape in shapes}
    kept = {}

    def pack(tensor):
        if tensor.dtype == torch.bfloat16 and tensor.shape in shapes:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autocast("cpu", torch.bfloat16):
        token_logprobs(model, BATCH, 1.0)  # tries it out
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            scored = token_logprobs(model, BATCH, 1.0)
    held = sum(storage.nbytes() for storage in kept.values())
    assert scored.logprobs_BT.grad_fn is not None
    return held


def test_no_copy_of_all_weights_in_bf16_is_kept_until_the_backward_pass(one_rank):
    whole, sharded = (small_model("qwen3", num_hidden_layers=6).requires_grad_(True) for _ in "ab")
    in_layers = sum(p.numel() for p in whole.get_decoder().layers.parameters() if p.ndim == 2)
    shard(sharded, one_rank(), torch.bfloat16)
    assert held_weights(whole) >= 2 * in_layers
    assert held_weights(sharded) <= 2 * 258 * 32  # the output layer, tied to the embedding


def test_a_model_without_layers_is_refused():
    with pytest.raises(UserError, match=r"no layers were found in it .* without torchrun"):
        shard(torch.nn.Sequential(torch.nn.Linear(2, 2)), None)


def test_a_model_through_which_sequences_go_alone_is_refused(one_rank, monkeypatch):
    monkeypatch.setattr(ways, "first_fitting", lambda *_: None)
    model = small_model("llama")
    token_logprobs(model, BATCH, 1.0)
    sharded = small_model("llama")
    shard(sharded, one_rank())
    with pytest.raises(UserError, match="LlamaForCausalLM: sequences go through it one at a time"):
        token_logprobs(sharded, BATCH, 1.0)


def test_a_sharded_model_can_be_used_after_it_failed(one_rank, policy_path):
    critic = load_critic(str(policy_path), CPU)
    shard(critic, one_rank())
    before = critic_values(critic, BATCH)
    broken = collate([[1, 2, 3]], [[5, 999, 7]], 0, CPU)  # there is no token 999
    with pytest.raises(IndexError):
        critic_values(critic, broken)
    assert torch.equal(critic_values(critic, BATCH), before)
