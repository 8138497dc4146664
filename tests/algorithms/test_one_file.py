"""The method in one file computes what the library does."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import astarpo
from astarpo.algorithms.astar_po import AStarPO
from astarpo.algorithms.base import LossInputs, Rollout
from astarpo.config.base import find_shipped
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import load_policy
from astarpo.models.vocabulary import load_vocabulary

FILE = Path(__file__).parents[2] / "examples" / "astar_po_in_one_file.py"


@pytest.fixture(scope="module")
def one_file():
    spec = importlib.util.spec_from_file_location("astar_po_in_one_file", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_and_stands_alone():
    text = FILE.read_text()
    assert len(text.splitlines()) <= 160
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) == {
        "copy", "math", "random", "re", "sys", "torch", "transformers",
    }  # fmt: skip


def test_its_values_are_the_librarys(one_file):
    rewards_PN = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]], dtype=torch.float64)
    for beta1 in (0.5, 2.0):
        expected = astarpo.optimal_values(rewards_PN.numpy(), beta1)
        assert one_file.optimal_values(rewards_PN, beta1).tolist() == pytest.approx(
            expected.tolist()
        )


def test_its_loss_and_gradient_are_the_librarys(one_file):
    model = find_shipped("shipped:sums")
    vocabulary = load_vocabulary(model)
    cpu = torch.device("cpu")
    reference, policy = (load_policy(model, cpu, vocabulary) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.model.parameters():
        with torch.no_grad():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.requires_grad_(True).add_(0.02 * noise)
    texts = [("Compute 1 + 2. Answer after ####.\n", "1 + 2 = 3\n#### 3"), ("Compute 9.\n", "9")]
    tokenizer = AutoTokenizer.from_pretrained(model)
    pairs = [(tokenizer(q)["input_ids"], tokenizer(a)["input_ids"]) for q, a in texts]
    rewards_B, values_B = torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.5])
    beta2 = 0.125

    batch = policy.collate([(tuple(prompt), tuple(response)) for prompt, response in pairs])
    logprobs_BT, _ = token_logprobs(policy.model, batch, 1.0)
    with torch.no_grad():
        ref_BT, _ = token_logprobs(reference.model, batch, 1.0)
    rollout = Rollout(batch.mask_BT, rewards_B, logprobs_BT.detach(), ref_BT, values_B)
    algorithm = AStarPO(beta2)
    rollout = algorithm.prepare(replace(rollout))
    expected = algorithm.loss(LossInputs(logprobs_BT, rollout)).loss_B.mean()
    expected.backward()
    gradients = [p.grad.clone() for p in policy.model.parameters()]
    policy.model.zero_grad()

    logprob_B = one_file.response_logprobs(policy.model, pairs)
    ref_B = one_file.response_logprobs(reference.model, pairs).detach()
    loss = one_file.astar_po_loss(logprob_B, ref_B, rewards_B, values_B, beta2)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.item() > 0.1
    for parameter, gradient in zip(policy.model.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def test_it_runs(one_file, monkeypatch, capsys):
    for name, value in {"NUM_PROBLEMS": 16, "NUM_SAMPLES": 2, "PROMPTS_PER_STEP": 8}.items():
        monkeypatch.setattr(one_file, name, value)
    one_file.main(find_shipped("shipped:sums"), 2)
    first, *steps = capsys.readouterr().out.splitlines()
    rate = float(re.search(r"mean reward ([\d.]+)", first)[1])
    assert 0.2 < rate < 0.8  # the shipped policy is right about half of the time
    assert [line.split(":")[0] for line in steps] == ["step 1", "step 2"]
    assert "KL 0.000 nats" in steps[0]
    assert "KL 0.000 nats" not in steps[1]
