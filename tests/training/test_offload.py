import copy

import pytest
import torch

from astarpo.algorithms.astar_po import AStarPO
from astarpo.models.policy import make_policy
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.learner import Learner
from astarpo.training.offload import ParkedWeights
from tests.training.test_learner import make_answers, make_config, trainable_copy, with_values

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
def test_weights_are_on_their_device_while_in_use_and_the_same_ever_after(policy, device):
    model = copy.deepcopy(policy.model).requires_grad_(False).to(device)
    before = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
    ids = torch.arange(6, device=device)[None]
    logits = model(ids).logits
    parked = ParkedWeights(model)
    held = [p.data_ptr() for p in model.parameters()]
    for _ in range(2):
        assert {p.device.type for p in model.parameters()} == {"cpu"}
        with parked.in_use():
            assert {p.device.type for p in model.parameters()} == {device}
            assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
            assert torch.equal(model(ids).logits, logits)
    with pytest.raises(KeyError), parked.in_use():
        raise KeyError
    assert [p.data_ptr() for p in model.parameters()] == held  # nothing was copied back
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_update_is_the_same_to_the_bit(policy):
    answers = with_values(make_answers(policy), [0.4] * 12)
    results = []
    for offload in (False, True):
        sides = [
            trainable_copy(policy),
            make_policy(copy.deepcopy(policy.model), policy.vocabulary),
        ]
        config = make_config(lr=1e-3, reference_offload=offload)
        learner = Learner(*sides, AStarPO(0.1), config, temperature=1.0)
        clock = Stopwatch()
        metrics = [learner.update(answers, 1.0, clock) for _ in range(2)]
        assert clock.seconds.keys() == {"reference", "update"}
        results.append((metrics, [p.detach().clone() for p in sides[0].model.parameters()]))
    (metrics, weights), (again, parked) = results
    assert metrics == again
    assert all(torch.equal(a, b) for a, b in zip(weights, parked, strict=True))
