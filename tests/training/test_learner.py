import copy
import math
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

from astarpo.algorithms.astar_po import AStarPO
from astarpo.algorithms.base import Algorithm, LossInputs, LossOutput, Rollout
from astarpo.algorithms.grpo import GRPO
from astarpo.algorithms.rebel import REBEL
from astarpo.algorithms.rloo import RLOO
from astarpo.config import TrainConfig
from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models.batch import collate
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy, make_policy
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.learner import Learner
from astarpo.training.metrics import standard_error
from astarpo.training.schedule import plan_minibatches
from astarpo.types import Answer, Prompt, TrainingStopped, Verdict
from tests.conftest import digit_problems

ALONE = OneProcess(torch.device("cpu"))


def make_config(**changes) -> TrainConfig:
    return TrainConfig(model="m", problems="p", values="v", out="o", **changes)


def make_answers(policy, count=12) -> list[Answer]:
    problems = digit_problems(count)
    prompts = [
        Prompt(p, tuple(policy.vocabulary.tokenizer(p.prompt[0]["content"])["input_ids"]))
        for p in problems
    ]
    done = HFEngine(policy, 8).generate(
        [Request(p.token_ids, i) for i, p in enumerate(prompts)], Sampling(24)
    )
    return [
        Answer(prompt, completion, "", Verdict(float(i % 3 == 0), None, "ok"))
        for i, (prompt, completion) in enumerate(zip(prompts, done, strict=True))
    ]


def with_values(answers, values) -> list[Answer]:
    """The same answers, to prompts that carry these values."""
    return [
        replace(answer, prompt=replace(answer.prompt, value=value))
        for answer, value in zip(answers, values, strict=True)
    ]


def try_out(policy, answers):
    """Has a model tried out on what it will be trained on, once, so not again later."""
    prompts, responses = (
        [a.prompt.token_ids for a in answers],
        [a.completion.token_ids for a in answers],
    )
    with torch.no_grad():
        token_logprobs(policy.model, collate(prompts, responses, 0, policy.device), 1.0)


def trainable_copy(policy):
    return make_policy(copy.deepcopy(policy.model), policy.vocabulary, trainable=True)


def updated(policy, answers, values, **changes):
    """Weights and metrics after one update from one rollout."""
    trained = trainable_copy(policy)
    config = make_config(**{"lr": 1e-3, "minibatches": 1} | changes)
    learner = Learner(trained, policy, AStarPO(0.1), config, temperature=1.0)
    metrics = learner.update(with_values(answers, values), 1.0, Stopwatch())
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()]), metrics


GROUPED = [
    AStarPO(0.1),
    GRPO(group_size=4, clip=0.2, kl_coef=0.1, std_normalize=True, length_scale=None),
    REBEL(eta=1.0, kl_coef=0.1),
    RLOO(group_size=4, kl_coef=0.1),
]


@pytest.mark.parametrize("algorithm", GROUPED, ids=lambda each: type(each).__name__)
def test_result_does_not_depend_on_micro_batches_or_order(policy, algorithm):
    answers = with_values(make_answers(policy), [0.1 * i for i in range(12)])
    # Adam's first step is sign-like, which would blow up rounding where a gradient is near 0:
    # compare the gradients instead.
    gradients, losses = [], []
    orders = [list(range(12)), list(range(12)), list(reversed(range(12)))]
    for order, budget in zip(orders, (10**6, 60, 150), strict=True):
        trained = trainable_copy(policy)
        config = make_config(minibatches=1, micro_batch_tokens=budget, grad_clip=1e9)
        learner = Learner(trained, policy, algorithm, config, temperature=1.0)
        parameters = list(trained.model.parameters())
        learner.optimizer.register_step_pre_hook(
            lambda *_, p=parameters: gradients.append(
                torch.cat([each.grad.flatten() for each in p])
            )
        )
        metrics = learner.update([answers[i] for i in order], 1.0, Stopwatch())
        assert all(each.grad is None for each in parameters)  # no memory while sampling
        losses.append(metrics["loss"])
    scale = gradients[0].abs().max()
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).abs().max() < 1e-5 * scale
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5, abs=1e-7)


def test_first_loss_is_that_of_the_values_alone(policy):
    # Policy equals reference: the residual is V* - r, by hand 0.4 - 1 for four of twelve.
    answers = make_answers(policy)
    _, metrics = updated(policy, answers, [0.4] * 12)
    assert metrics["loss"] == pytest.approx((4 * 0.36 + 8 * 0.16) / 12, rel=1e-5)
    assert metrics["residual"] == pytest.approx(0.4 - 1 / 3, rel=1e-4)
    assert metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert abs(metrics["engine_kl"]) < 1e-4
    assert 0 < metrics["entropy"] < math.log(258)


@pytest.mark.parametrize("algorithm", GROUPED[1:], ids=lambda each: type(each).__name__)
def test_where_the_engine_rounds_ratios_are_to_the_trainers_own_logprobs(policy, algorithm):
    generator = torch.Generator().manual_seed(0)
    answers = make_answers(policy)
    noise = [0.3 * torch.randn(len(a.completion.logprobs), generator=generator) for a in answers]

    def reported(answer, added):
        logprobs = tuple(
            x + float(y) for x, y in zip(answer.completion.logprobs, added, strict=True)
        )
        return replace(answer, completion=replace(answer.completion, logprobs=logprobs))

    rounded = [reported(a, n) for a, n in zip(answers, noise, strict=True)]

    def learnt(given, engine):
        trained = trainable_copy(policy)
        config = make_config(minibatches=2, lr=1e-3, engine=engine)
        metrics = Learner(trained, policy, algorithm, config, 1.0).update(given, 1.0, Stopwatch())
        return torch.cat([p.detach().flatten() for p in trained.model.parameters()]), metrics

    weights, metrics = learnt(rounded, "vllm")
    assert torch.equal(weights, learnt(answers, "vllm")[0])
    assert not torch.equal(learnt(rounded, "hf")[0], learnt(answers, "hf")[0])
    group = algorithm.samples_per_prompt
    first = noise[: 12 // group // 2 * group]  # those of the first mini-batch
    expected = sum(float(n.sum()) for n in first) / len(first)
    assert metrics["engine_kl"] == pytest.approx(expected, abs=1e-4)


def test_update_raises_what_was_rewarded(policy):
    answers = with_values(make_answers(policy), [0.5] * 12)
    trained = trainable_copy(policy)
    config = make_config(lr=1e-3, minibatches=1)
    learner = Learner(trained, policy, AStarPO(1e-3), config, temperature=1.0)
    before = learner.update(answers, 1.0, Stopwatch())
    after = learner.update(answers, 1.0, Stopwatch())
    assert after["loss"] < before["loss"]


def test_kl_to_the_reference_is_not_negative_on_own_samples(policy):
    moved = trainable_copy(policy)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in moved.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    answers = with_values(make_answers(moved, 200), [0.0] * 200)
    learner = Learner(moved, policy, AStarPO(1e-3), make_config(minibatches=1), temperature=1.0)
    metrics = learner.update(answers, 1.0, Stopwatch())
    assert metrics["kl"] > 5 * metrics["kl_se"] > 0


def test_standard_error_takes_the_samples_of_a_prompt_together():
    values, groups = torch.tensor([1.0, 5.0, 3.0, 7.0]), torch.tensor([4, 9, 4, 9])
    # Means 2 and 6: their deviation is sqrt(8), the error of their mean sqrt(8 / 2). The four as if
    # independent: sqrt(20 / 3 / 4).
    assert standard_error(values, groups) == pytest.approx(2.0)
    assert standard_error(values, torch.arange(4)) == pytest.approx(math.sqrt(20 / 3 / 4))
    assert standard_error(values, torch.zeros(4, dtype=int)) == pytest.approx(math.sqrt(5 / 3))
    assert standard_error(values[:1], groups[:1]) == 0


def test_standard_error_is_how_far_means_of_groups_spread():
    generator = torch.Generator().manual_seed(0)
    of_prompt = torch.randn(2000, 16, 1, generator=generator)
    values = (0.5 * of_prompt + torch.randn(2000, 16, 8, generator=generator)).flatten(1)
    groups = torch.arange(128) // 8
    errors = torch.tensor([standard_error(each, groups) for each in values])
    spread = values.mean(dim=1).std().item()
    assert errors.square().mean().sqrt().item() == pytest.approx(spread, rel=0.05)
    as_if_independent = values.std(dim=1).square().mean().sqrt() / math.sqrt(128)
    assert as_if_independent < 0.7 * errors.mean()


def test_kl_se_of_groups_is_clustered(policy):
    answers = [answer for answer in make_answers(policy, 3) for _ in range(4)]
    moved = trainable_copy(policy)
    with torch.no_grad():
        for parameter in moved.model.parameters():
            parameter *= 1.01
    config = make_config(minibatches=1, micro_batch_tokens=60)
    learner = Learner(moved, policy, GROUPED[1], config, temperature=1.0)
    metrics = learner.update(answers, 1.0, Stopwatch())
    # Equal samples of three prompts are three numbers, not twelve.
    assert metrics["kl_se"] == pytest.approx(metrics["kl_std"] / math.sqrt(3 - 1), rel=1e-3)


def test_minibatches_are_separate_updates(policy):
    answers = make_answers(policy)
    one, _ = updated(policy, answers, [0.4] * 12, minibatches=1)
    two, _ = updated(policy, answers, [0.4] * 12, minibatches=2)
    assert not torch.allclose(one, two)


def test_gradient_checkpointing_changes_nothing(policy):
    answers = make_answers(policy, 4)
    plain, _ = updated(policy, answers, [0.4] * 4)
    saved, _ = updated(policy, answers, [0.4] * 4, gradient_checkpointing=True)
    assert torch.allclose(plain, saved, atol=1e-6)


@pytest.mark.parametrize(("checkpointing", "times"), [(False, 1), (True, 2)])
def test_gradient_checkpointing_computes_a_layer_twice_and_sampling_still_works(
    policy, checkpointing, times
):
    answers = make_answers(policy, 4)
    trained = trainable_copy(policy)
    try_out(trained, answers)
    calls = []
    trained.model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    config = make_config(minibatches=1, gradient_checkpointing=checkpointing)
    learner = Learner(trained, policy, AStarPO(0.1), config, temperature=1.0)
    learner.update(with_values(answers, [0.4] * 4), 0.0, Stopwatch())
    assert len(calls) == times
    again = make_answers(trained, 4)
    assert [a.completion.token_ids for a in again] == [a.completion.token_ids for a in answers]


class BrokenLoss(Algorithm):
    def loss(self, inputs: LossInputs) -> LossOutput:
        return LossOutput(inputs.logprobs_BT.sum(-1) * math.nan)


def test_stops_before_a_loss_that_is_not_finite_reaches_the_weights(policy):
    trained = trainable_copy(policy)
    learner = Learner(trained, policy, BrokenLoss(), make_config(), temperature=1.0)
    with pytest.raises(TrainingStopped, match="not finite"):
        learner.update(make_answers(policy, 4), 1.0, Stopwatch())
    for before, after in zip(policy.model.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(before, after)


def test_a_micro_batch_never_waits_for_a_gpu(policy, monkeypatch):
    # On the meta device whatever needs a value raises: .item(), nonzero, a mask as an index.
    trained = trainable_copy(policy)
    config = make_config(minibatches=1)
    learner = Learner(trained, policy, AStarPO(0.1), config, 0.7)
    answers = make_answers(policy, 3)
    [[part]] = plan_minibatches(answers, learner.algorithm, config, trained)
    model = trained.model
    try_out(trained, answers)
    values_BT = torch.empty(part.tokens.mask_BT.shape, device="meta")
    values_B = values_BT[:, 0]
    rollout = Rollout(values_BT > 0, values_B, values_BT, values_BT, advantages=values_B)
    model.to("meta")
    monkeypatch.setattr(Policy, "autocast", lambda _: nullcontext())  # which knows no such device
    [(number, noted)] = learner._accumulate([on_meta(part)], rollout, first=True)
    assert all(p.grad.is_meta for p in model.parameters())
    assert number == 0
    assert noted["kl"].shape == (3,)


def on_meta(batch):
    """The same dataclass, its tensors without values."""
    moved = {each.name: getattr(batch, each.name) for each in fields(batch)}
    for name, value in moved.items():
        if isinstance(value, torch.Tensor):
            moved[name] = value.to("meta")
        elif is_dataclass(value):
            moved[name] = on_meta(value)
    return replace(batch, **moved)


@pytest.mark.parametrize(("apart", "warnings"), [(0.0, 0), (1e-6, 0), (0.01, 1)])
def test_training_on_what_was_not_sampled_is_said_once(policy, caplog, apart, warnings):
    answers = [
        replace(
            a,
            completion=replace(
                a.completion, logprobs=tuple(x + apart for x in a.completion.logprobs)
            ),
        )
        for a in with_values(make_answers(policy, 4), [0.4] * 4)
    ]
    learner = Learner(trainable_copy(policy), policy, AStarPO(0.1), make_config(), temperature=1.0)
    for _ in range(2):
        learner.update(answers, 0.0, Stopwatch())
    said = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == warnings
    assert all("Qwen2ForCausalLM" in message and "engine_kl" in message for message in said)
