"""Every family either scores and samples as a plain forward pass does, or is refused by name."""

import logging

import pytest
import torch

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import GenerateEngine, HFEngine
from astarpo.models.batch import collate
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.models.vocabulary import Vocabulary
from astarpo.types import UserError
from tests.models.test_batch import unpadded_logprobs
from tests.support.families import FAMILIES, REFUSED, WINDOW, family_model

LENGTHS = [(20, 25), (3, 40), (30, 5), (9, 32)]


def ids(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, 256, (count,), generator=generator).tolist())


PROMPTS = [ids(prompt, i) for i, (prompt, _) in enumerate(LENGTHS)]
RESPONSES = [ids(response, 10 + i) for i, (_, response) in enumerate(LENGTHS)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_agrees_with_plain_forward_passes_or_is_refused(name, caplog):
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model = family_model(name)
    policy = Policy(model, Vocabulary(None, frozenset({257}), pad_id=0))
    requests = [Request(prompt, seed) for prompt in PROMPTS[:3] for seed in range(2)]
    batch = collate(PROMPTS, RESPONSES, 0, policy.device)
    if name in REFUSED:
        with pytest.raises(UserError, match=type(model).__name__):
            HFEngine(policy, 8).generate(requests, Sampling(2 * WINDOW))
        return
    with torch.no_grad():
        scored_BT, _ = token_logprobs(model, batch, 1.0)
    for row_T, prompt, response in zip(scored_BT, PROMPTS, RESPONSES, strict=True):
        expected, _ = unpadded_logprobs(model, prompt, response)
        assert row_T[: len(response)].tolist() == pytest.approx(expected, abs=1e-4)
    for engine in (HFEngine, GenerateEngine):
        done = engine(policy, 8).generate(requests, Sampling(2 * WINDOW))
        assert max(len(completion.token_ids) for completion in done) > WINDOW
        for request, completion in zip(requests, done, strict=True):
            expected, _ = unpadded_logprobs(model, request.prompt_ids, completion.token_ids)
            assert completion.logprobs == pytest.approx(expected, abs=1e-4)
