"""A LoRA adapter in place of full training: what must agree exactly, and what may move."""

import copy
import dataclasses
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from astarpo.algorithms.astar_po import AStarPO
from astarpo.config import TrainConfig
from astarpo.config.documents import build
from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models import head
from astarpo.models.batch import collate, masked_sum
from astarpo.models.head import is_plain
from astarpo.models.logprobs import token_logprobs
from astarpo.models.lora import adapt, require_lora, save_adapter, save_trained
from astarpo.models.policy import load_policy, make_policy, round_linears
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.learner import Learner
from astarpo.types import UserError
from tests.models.test_batch import unpadded_logprobs
from tests.support.models import small_model
from tests.training.test_learner import make_answers, make_config, try_out, with_values

CPU = torch.device("cpu")
VALUES = [0.1 * i for i in range(12)]
BATCH = collate([[5, 6, 7], [8]], [[1, 2, 30], [3, 4, 11, 12, 200, 7]], pad_id=0, device=CPU)


def frozen_copy(policy, *, rounded=False):
    """As `load_policy` would have it; rounded, as on CUDA."""
    base = make_policy(copy.deepcopy(policy.model), policy.vocabulary)
    if not rounded:
        return base
    round_linears(base.model, torch.bfloat16)
    return dataclasses.replace(base, autocast_dtype=torch.bfloat16)


def adapted(policy, *, rounded=False, **changes):
    return adapt(frozen_copy(policy, rounded=rounded), make_config(lora_rank=4, **changes))


def shake(policy, size=0.1):
    """Moves an adapter as training would, B most of all, which begins as 0."""
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def logprobs(policy, batch=BATCH):
    with policy.autocast():
        return token_logprobs(policy.model, batch, 1.0).logprobs_BT


def trained_parameters(policy):
    return {name: p for name, p in policy.model.named_parameters() if p.requires_grad}


def learner_of(sides, **changes):
    config = make_config(**{"lr": 1e-2, "minibatches": 1, "grad_clip": 1e9} | changes)
    return Learner(*sides, AStarPO(0.1), config, temperature=1.0)


def gradients(sides, answers, **changes):
    """The adapter's gradient, flat, and the metrics of the update it is taken from."""
    learner, found = learner_of(sides, **changes), []
    learner.optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.flatten() for p in learner.parameters.values()]))
    )
    metrics = learner.update(with_values(answers, VALUES[: len(answers)]), 1.0, Stopwatch())
    return found[0], metrics


@pytest.mark.parametrize("rounded", [False, True], ids=["fp32", "bf16"])
def test_a_new_adapter_changes_nothing_to_the_bit(policy, rounded):
    before = logprobs(frozen_copy(policy, rounded=rounded))
    sides = adapted(policy, rounded=rounded)
    assert all(torch.equal(logprobs(side), before) for side in sides)
    assert all(p.dtype == torch.float32 for p in trained_parameters(sides[0]).values())
    if rounded:
        layer = sides[0].model.get_decoder().layers[0].mlp.up_proj
        assert layer.base_layer.weight.dtype == torch.bfloat16
    shake(sides[0])
    assert torch.equal(logprobs(sides[1]), before)
    assert (logprobs(sides[0]) - before).abs().max() > 0.01


@pytest.mark.parametrize("rounded", [False, True], ids=["fp32", "bf16"])
def test_first_kl_is_zero_and_updates_touch_the_adapter_alone(policy, rounded):
    answers = make_answers(policy)
    sides = adapted(policy, rounded=rounded)
    at_first = {name: tensor.clone() for name, tensor in sides[0].model.state_dict().items()}
    reference = logprobs(sides[1])
    learner = learner_of(sides, minibatches=2)
    metrics = [learner.update(with_values(answers, VALUES), 1.0, Stopwatch()) for _ in range(3)]
    assert metrics[0]["kl"] == metrics[0]["kl_std"] == 0
    assert abs(metrics[1]["kl"]) > 1e-3
    assert metrics[0]["drift"] > 0
    names = trained_parameters(sides[0]).keys()
    assert learner.parameters.keys() == names
    for name, tensor in sides[0].model.state_dict().items():
        assert torch.equal(tensor, at_first[name]) == (name not in names)
    assert torch.equal(logprobs(sides[1]), reference)
    sampled_anew = make_answers(sides[0], 12)
    again = learner.update(with_values(sampled_anew, VALUES), 0.0, Stopwatch())
    assert abs(again["engine_kl"]) < (0.01 if rounded else 1e-5)


def test_every_linear_layer_but_the_output_has_one(policy):
    (side, _), base = adapted(policy), frozen_copy(policy)
    linears = {n for n, m in base.model.named_modules() if isinstance(m, nn.Linear)} - {"lm_head"}
    names = trained_parameters(side)
    assert len(linears) == 14
    prefix = "base_model.model."
    assert names.keys() == {
        f"{prefix}{n}.lora_{part}.default.weight" for n in linears for part in "AB"
    }
    assert not any(module.training for module in side.model.modules())


def test_gradients_are_those_of_the_whole_weights_by_the_chain_rule(policy):
    # W' = W + s B A, hence dL/dB = s dL/dW' A^T and dL/dA = s B^T dL/dW'.
    side, _ = adapted(policy, lora_alpha=12)
    shake(side)

    def differentiate(model):
        scores = token_logprobs(model, BATCH, 0.7)
        weights_BT = torch.linspace(-1, 1, BATCH.mask_BT.numel()).view(BATCH.mask_BT.shape)
        masked_sum(scores.logprobs_BT * weights_BT, BATCH.mask_BT).sum().backward()

    differentiate(side.model)
    merged = copy.deepcopy(side.model).merge_and_unload().requires_grad_(True)
    differentiate(merged)
    layers = [(n, m) for n, m in side.model.named_modules() if hasattr(m, "lora_A")]
    assert len(layers) == 14
    for name, layer in layers:
        whole = merged.get_submodule(name.removeprefix("base_model.model.")).weight.grad
        a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
        for gradient, expected in ((b.grad, whole @ a.T * 3), (a.grad, b.T @ whole * 3)):
            assert expected.abs().max() > 1e-3
            assert (gradient - expected).abs().max() < 1e-5 * expected.abs().max()


def test_result_does_not_depend_on_micro_batches(policy):
    answers = make_answers(policy)
    whole, metrics = gradients(adapted(policy), answers)
    parts, again = gradients(adapted(policy), answers, micro_batch_tokens=60)
    assert (whole - parts).abs().max() < 1e-5 * whole.abs().max()
    assert again["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


def test_gradient_checkpointing_changes_nothing_though_the_embedding_is_frozen(policy):
    answers = make_answers(policy, 4)
    kept, recomputed = adapted(policy), adapted(policy)
    for sides in (kept, recomputed):
        try_out(sides[0], answers)
        shake(sides[0])
    calls = []
    first = recomputed[0].model.get_decoder().layers[0].self_attn
    first.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    plain, _ = gradients(kept, answers)
    saved, _ = gradients(recomputed, answers, gradient_checkpointing=True)
    assert calls == [False, True, True]  # reference, policy, policy anew
    assert torch.allclose(plain, saved, atol=1e-6 * plain.abs().max())
    learner = learner_of(recomputed)
    assert all(p.abs().max() > 0 for p in learner.parameters.values())
    sizes = [p.numel() for p in learner.parameters.values()]
    assert all(part.abs().max() > 0 for part in saved.split(sizes))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # of gpt2's layers, set by peft itself
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_scores_and_samples_take_the_same_paths_as_without_an_adapter(policy, kind, monkeypatch):
    base = make_policy(small_model(kind), policy.vocabulary)
    plain = is_plain(base.model)
    side, _ = adapt(base, make_config(lora_rank=4))
    shake(side)
    assert is_plain(side.model) == plain == (kind != "gemma2")
    requests = [Request((5, 6, 7), i) for i in range(4)] + [Request((8,), i) for i in range(4)]
    done = HFEngine(side, 8).generate(requests, Sampling(20))
    batch = collate([r.prompt_ids for r in requests], [c.token_ids for c in done], 0, CPU)
    monkeypatch.setattr(head, "MAX_LOGITS", 3 * 258)
    scored = logprobs(side, batch)
    merged = copy.deepcopy(side.model).merge_and_unload()
    for request, completion, row_T in zip(requests, done, scored, strict=True):
        own, _ = unpadded_logprobs(merged, request.prompt_ids, completion.token_ids)
        assert row_T[: len(own)].tolist() == pytest.approx(own, abs=2e-5)
        assert completion.logprobs == pytest.approx(own, abs=2e-5)


def test_a_saved_adapter_goes_on_with_the_same_bits(policy, policy_path, tmp_path):
    config = make_config(lora_rank=4).model_copy(update={"model": str(policy_path)})
    for rounded in (False, True):
        side, _ = adapt(frozen_copy(policy, rounded=rounded), config)
        shake(side)
        path = tmp_path / f"adapter-{rounded}"
        save_adapter(path, side)
        assert {p.name for p in path.iterdir()} == {
            "adapter_config.json", "adapter_model.safetensors",
        }  # fmt: skip
        again, reference = adapt(frozen_copy(policy, rounded=rounded), config, path)
        before, after = trained_parameters(side), trained_parameters(again)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert torch.equal(logprobs(side), logprobs(again))
        assert torch.equal(logprobs(reference), logprobs(frozen_copy(policy, rounded=rounded)))
        assert not any(module.training for module in again.model.modules())


def test_the_result_is_a_plain_model_that_says_the_same(policy, policy_path, tmp_path):
    side, reference = adapted(policy)
    shake(side)
    save_trained(tmp_path, side, str(policy_path))
    merged = load_policy(str(tmp_path / "model"), CPU)
    assert type(merged.model) is type(policy.model)
    moved = (logprobs(side) - logprobs(reference)).abs().max()
    assert moved > 0.01
    assert (logprobs(merged) - logprobs(side)).abs().max() < 1e-5
    before, after = (load_file(p / "model.safetensors") for p in (policy_path, tmp_path / "model"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 14
    assert all(name.endswith("_proj.weight") for name in changed)
    assert merged.vocabulary.stop_ids == side.vocabulary.stop_ids
    again, _ = adapt(frozen_copy(policy), make_config(lora_rank=4), tmp_path / "adapter")
    assert torch.equal(logprobs(again), logprobs(side))


def test_the_seed_is_the_adapters_and_nobody_elses(policy):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (trained_parameters(adapted(policy, seed=seed)[0]) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_alpha_is_twice_the_rank_unless_given(policy):
    for alpha, scale in ((None, 2.0), (12, 3.0)):
        side, _ = adapted(policy, lora_alpha=alpha)
        assert side.model.get_decoder().layers[1].mlp.up_proj.scaling == {"default": scale}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_alpha": 8}, "give --lora-rank too"),
        ({"lora_rank": 4, "reference_offload": True}, "nothing to keep elsewhere"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        require_lora(make_config(**settings))


def test_a_missing_library_is_named_before_anything_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    require_lora(make_config())
    with pytest.raises(UserError, match=r"pip install peft"):
        require_lora(make_config(lora_rank=4))


@pytest.mark.parametrize("name", ["lora_rank", "lora_alpha"])
def test_bounds(name):
    needed = {"model": "m", "problems": "p", "out": "o"}
    with pytest.raises(UserError, match=f"{name}: .*greater than or equal to 1"):
        build(TrainConfig, needed | {name: 0})
