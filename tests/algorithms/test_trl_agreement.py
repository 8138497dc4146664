"""The losses against TRL's own trainers, on the same model and the same tokens.

Needs TRL, which the development dependencies leave out; without it the file is skipped.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from astarpo.algorithms.astar_po import AStarPO
from astarpo.algorithms.base import LossInputs, Rollout
from astarpo.algorithms.grpo import GRPO
from astarpo.algorithms.rloo import RLOO
from astarpo.models.batch import TokenBatch, collate
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import save_model
from astarpo.stages.warm_start import build_policy

pytest.importorskip("trl")

GROUP, LIMIT, EPSILON = 4, 6, 0.2
PROMPTS = ["2 + 3 =", "Name a prime:"]
REWARDS = [1.0, 0.0, 0.25, 1.0, 0.0, 0.0, -2.0, 0.0]
LENGTHS = [6, 1, 4, 6, 2, 3, 5, 6]
SEEDS = {"policy": 1, "reference": 2}


def tiny(name: str):
    """A policy whose distributions are far from uniform, as an untrained one's are not."""
    policy = build_policy(16, 2, 2, seed=SEEDS[name])
    with torch.no_grad():
        policy.model.model.embed_tokens.weight.mul_(20)
    return policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("trl") / "model"
    path.mkdir()
    save_model(path, tiny("reference"))
    return path


def reward(completions, **_):
    return REWARDS[: len(completions)]


def make_trainer(module: str, name: str, folder, tmp_path, **settings):
    """One of TRL's trainers, its policy moved away from the reference."""
    from datasets import Dataset

    trl_module = pytest.importorskip(module)
    batch = {} if name == "A2PO" else {"num_generations": GROUP, "steps_per_generation": 1}
    config = getattr(trl_module, f"{name}Config")(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        per_device_train_batch_size=len(REWARDS),
        max_completion_length=LIMIT,
        **batch,
        **settings,
    )
    trainer = getattr(trl_module, f"{name}Trainer")(
        model=str(folder),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
    )
    trainer.model.load_state_dict(tiny("policy").model.state_dict())
    trainer.model.train()
    return trainer


def sample(trainer) -> dict:
    """TRL's own rollout: its samples, rewards and advantages; then cut to mixed lengths."""
    trainer.current_gradient_accumulation_steps = 1
    trainer._step = 0
    rows = [{"prompt": prompt} for prompt in PROMPTS for _ in range(GROUP)]
    inputs = trainer._generate_and_score_completions(rows)
    assert inputs["completion_ids"].shape == (len(REWARDS), LIMIT)
    inputs["completion_mask"] = (torch.arange(LIMIT) < torch.tensor(LENGTHS)[:, None]).long()
    return inputs


def our_batch(inputs: dict, lengths: list[int] = LENGTHS) -> TokenBatch:
    prompts = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)
    ]
    responses = [
        ids[:length].tolist() for ids, length in zip(inputs["completion_ids"], lengths, strict=True)
    ]
    return collate(prompts, responses, pad_id=0, device=torch.device("cpu"))


def our_logprobs(model, batch: TokenBatch, temperature: float = 1.0) -> torch.Tensor:
    return token_logprobs(model, batch, temperature).logprobs_BT


def moved_since(logprobs_BT: torch.Tensor) -> torch.Tensor:
    """Of a policy that sampled, near enough for some ratios to be clipped and some not."""
    generator = torch.Generator().manual_seed(0)
    return logprobs_BT.detach() + 0.3 * torch.randn(logprobs_BT.shape, generator=generator)


def gradient(model, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_same(model, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)
    gradients = [gradient(model, loss) for loss in (ours, theirs)]
    scale = gradients[1].abs().max().item()
    assert scale > 0
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4 * scale)


def grpo_case(folder, tmp_path, *, std_normalize, temperature=1.0, **settings):
    """Both sides of GRPO: TRL's trainer, its loss's inputs, and ours, advantages still to come."""
    trainer = make_trainer(
        "trl",
        "GRPO",
        folder,
        tmp_path,
        epsilon=EPSILON,
        scale_rewards="group" if std_normalize else "none",
        temperature=temperature,
        **settings,
    )
    inputs = sample(trainer)
    batch = our_batch(inputs)
    logprobs_BT = our_logprobs(trainer.model, batch, temperature)
    inputs["old_per_token_logps"] = moved_since(logprobs_BT)
    rollout = Rollout(
        mask_BT=batch.mask_BT,
        rewards_B=torch.tensor(REWARDS),
        sampled_logprobs_BT=moved_since(logprobs_BT),
        ref_logprobs_BT=our_logprobs(tiny("reference").model, batch, temperature).detach(),
    )
    return trainer, inputs, LossInputs(logprobs_BT, rollout)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("std_normalize", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_grpo(folder, tmp_path, loss_type, beta, std_normalize, temperature):
    trainer, inputs, ours = grpo_case(
        folder,
        tmp_path,
        std_normalize=std_normalize,
        temperature=temperature,
        loss_type=loss_type,
        beta=beta,
        use_bias_correction_kl=False,
    )
    algorithm = GRPO(
        group_size=GROUP,
        clip=EPSILON,
        kl_coef=beta,
        std_normalize=std_normalize,
        length_scale=None if loss_type == "grpo" else LIMIT,
    )
    ours = replace(ours, rollout=algorithm.prepare(ours.rollout))
    assert torch.allclose(ours.rollout.advantages, inputs["advantages"], atol=1e-6)
    output = algorithm.loss(ours)
    assert_same(trainer.model, output.loss_B.mean(), trainer._compute_loss(trainer.model, inputs))
    lengths_B = torch.tensor(LENGTHS)
    for name, their_name in [("clipped", "clip_ratio/region_mean"), ("k3", "kl")]:
        if name == "clipped" or beta:
            over_tokens = (output.metrics[name] * lengths_B).sum() / lengths_B.sum()
            theirs = trainer._metrics["train"][their_name][-1]
            assert 0 < theirs == pytest.approx(over_tokens.item(), rel=1e-4)


def test_grpo_s_kl_in_trl_has_a_ratio_more_by_default(folder, tmp_path):
    # DeepSeek-V3.2's correction, which DeepSeekMath's equation and ours do not have.
    trainer, inputs, ours = grpo_case(
        folder, tmp_path, std_normalize=True, loss_type="grpo", beta=0.3
    )
    assert trainer.args.use_bias_correction_kl
    algorithm = GRPO(GROUP, EPSILON, kl_coef=0.3, std_normalize=True, length_scale=None)
    output = algorithm.loss(replace(ours, rollout=algorithm.prepare(ours.rollout)))
    theirs = trainer._compute_loss(trainer.model, inputs)
    assert abs(output.loss_B.mean().item() - theirs.item()) > 1e-3 * abs(theirs.item())


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_rloo_on_policy(folder, tmp_path, beta):
    # TRL multiplies by a whole response's clipped ratio, which is 1 here: same gradient, and a
    # loss of another value (ours is -A ln pi, theirs -A).
    trainer = make_trainer("trl", "RLOO", folder, tmp_path, beta=beta)
    inputs = sample(trainer)
    inputs["completion_mask"] = torch.ones(len(REWARDS), LIMIT, dtype=torch.long)
    batch = our_batch(inputs, [LIMIT] * len(REWARDS))
    theirs = trainer._compute_loss(trainer.model, inputs)
    logprobs_BT = our_logprobs(trainer.model, batch)
    algorithm = RLOO(group_size=GROUP, kl_coef=beta)
    rollout = algorithm.prepare(
        Rollout(
            mask_BT=batch.mask_BT,
            rewards_B=torch.tensor(REWARDS),
            sampled_logprobs_BT=logprobs_BT.detach(),
            ref_logprobs_BT=our_logprobs(tiny("reference").model, batch).detach(),
        )
    )
    assert torch.allclose(rollout.advantages, inputs["advantages"], atol=1e-5)
    ours = algorithm.loss(LossInputs(logprobs_BT, rollout)).loss_B.mean()
    gradients = [gradient(trainer.model, loss) for loss in (ours, theirs)]
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4 * gradients[1].abs().max().item())


@pytest.fixture
def a2po(folder, tmp_path):
    """TRL's A*-PO trainer, and a rollout as its `_prepare_inputs` would hand it over."""
    trainer = make_trainer(
        "trl.experimental.a2po", "A2PO", folder, tmp_path, beta2=0.05, temperature=0.7
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 256, (len(REWARDS), LIMIT), generator=generator)
    tokens = trainer.processing_class(
        [PROMPTS[row % 2] for row in range(len(REWARDS))], return_tensors="pt", padding=True
    )
    prompt_mask = tokens["attention_mask"]
    mask = (torch.arange(LIMIT) < torch.tensor(LENGTHS)[:, None]).long()
    inputs = {
        "prompt_ids": tokens["input_ids"],
        "prompt_mask": prompt_mask,
        "completion_ids": ids,
        "input_ids": torch.cat([tokens["input_ids"], ids], dim=1),
        "attention_mask": torch.cat([prompt_mask, mask], dim=1),
        "logits_to_keep": LIMIT,
        "rewards": torch.tensor(REWARDS),
        "v_star": torch.linspace(-1, 1, len(REWARDS)),
    }
    with torch.no_grad():
        inputs["ref_logps"] = trainer._get_sequence_logps(
            trainer.ref_model, inputs["input_ids"], inputs["attention_mask"], LIMIT
        )
    return SimpleNamespace(trainer=trainer, inputs=inputs, batch=our_batch(inputs))


def our_astar_po_loss(case, temperature: float) -> torch.Tensor:
    logprobs_BT = our_logprobs(case.trainer.model, case.batch, temperature)
    ref_BT = our_logprobs(case.trainer.ref_model, case.batch, temperature).detach()
    rollout = Rollout(
        mask_BT=case.batch.mask_BT,
        rewards_B=case.inputs["rewards"],
        sampled_logprobs_BT=logprobs_BT.detach(),
        ref_logprobs_BT=ref_BT,
        values_B=case.inputs["v_star"],
    )
    algorithm = AStarPO(beta=0.05)
    return algorithm.loss(LossInputs(logprobs_BT, algorithm.prepare(rollout))).loss_B.mean()


def test_astar_po_at_temperature_1(a2po):
    theirs = a2po.trainer.compute_loss(a2po.trainer.model, a2po.inputs)
    assert_same(a2po.trainer.model, our_astar_po_loss(a2po, 1.0), theirs)


def test_astar_po_at_another_temperature_differs(a2po):
    # The trainer samples at 0.7, but scores as if at 1: it leaves the logits undivided. Ours
    # scores under the distribution that was sampled.
    theirs = a2po.trainer.compute_loss(a2po.trainer.model, a2po.inputs).item()
    assert a2po.trainer.args.temperature == 0.7
    assert our_astar_po_loss(a2po, 1.0).item() == pytest.approx(theirs, rel=1e-4)
    assert abs(our_astar_po_loss(a2po, 0.7).item() - theirs) > 1e-3 * theirs
