import pytest
import torch

from astarpo.models.batch import collate, masked_sum, micro_batches
from astarpo.models.logprobs import token_logprobs

PROMPTS = [[5, 6, 7], [8], [9, 10]]
RESPONSES = [[1, 2], [3, 4, 11, 12], [13]]
CPU = torch.device("cpu")


def test_collate_layout():
    batch = collate(PROMPTS, RESPONSES, pad_id=0, device=CPU)
    assert batch.input_ids_BS.tolist() == [
        [5, 6, 7, 1, 2, 0, 0],
        [0, 0, 8, 3, 4, 11, 12],
        [0, 9, 10, 13, 0, 0, 0],
    ]
    assert batch.attention_mask_BS.tolist() == [
        [1, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 1],
        [0, 1, 1, 1, 0, 0, 0],
    ]
    assert batch.position_ids_BS.tolist()[1] == [0, 0, 0, 1, 2, 3, 4]
    assert batch.mask_BT.tolist() == [
        [True, True, False, False],
        [True] * 4,
        [True, False, False, False],
    ]


def test_masks_come_from_lengths_when_the_pad_is_a_stop_id():
    # The response ends in the pad id itself and holds it in the middle too: all of it counts.
    batch = collate([[5]], [[7, 0, 7, 0]], pad_id=0, device=CPU)
    assert batch.mask_BT.tolist() == [[True] * 4]
    batch = collate([[5], [5]], [[7, 0, 7, 0], [0]], pad_id=0, device=CPU)
    assert batch.mask_BT.sum(dim=1).tolist() == [4, 1]


def unpadded_logprobs(model, prompt, response, temperature=1.0):
    """Straight from the definition: one sequence, no padding, full softmax."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]])).logits[0].double() / temperature
    logprobs = logits.log_softmax(-1)
    positions = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    chosen = [float(logprobs[p, i]) for p, i in zip(positions, response, strict=True)]
    entropy = [float(-(logprobs[p].exp() * logprobs[p]).sum()) for p in positions]
    return chosen, entropy


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_padding_changes_nothing(policy, temperature):
    batch = collate(PROMPTS, RESPONSES, policy.vocabulary.pad_id, CPU)
    with torch.no_grad():
        got = token_logprobs(policy.model, batch, temperature, entropy=True)
    assert got.entropy_BT is not None
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        logprobs, entropy = unpadded_logprobs(policy.model, prompt, response, temperature)
        assert got.logprobs_BT[i, : len(response)].tolist() == pytest.approx(logprobs, abs=1e-5)
        assert got.entropy_BT[i, : len(response)].tolist() == pytest.approx(entropy, abs=1e-5)


def test_pad_id_changes_nothing(policy):
    with torch.no_grad():
        sums = [
            masked_sum(token_logprobs(policy.model, batch, 1.0).logprobs_BT, batch.mask_BT)
            for batch in (collate(PROMPTS, RESPONSES, pad, CPU) for pad in (0, 256, 13))
        ]
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[0], sums[2])


def test_micro_batches_hold_every_sequence_once_within_budget():
    lengths = [5, 100, 7, 30, 30, 8, 1]
    batches = micro_batches(lengths, max_tokens=60)
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert batches[0] == [1]  # longer than the budget: alone
    for batch in batches[1:]:
        assert max(lengths[i] for i in batch) * len(batch) <= 60
