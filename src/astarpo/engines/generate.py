"""Sampling with transformers' own `generate`, for models that our own loop cannot decode.

`generate` knows the caches of all kinds of models. The tokens are still drawn here, as in our own
loop: all others are given no chance, so that `generate` takes the one that was drawn.

Shapes: _B rows being decoded, _V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from astarpo.engines.base import Request, Sampling
from astarpo.engines.rows import Rows
from astarpo.models.folder import quiet_transformers
from astarpo.models.policy import Policy
from astarpo.runtime.stopping import check_stop
from astarpo.types import Completion


def complete(
    policy: Policy, requests: Sequence[Request], sampling: Sampling, *, alike: bool
) -> list[Completion]:
    """Completes requests that are in the order of their prompts' lengths.

    With `alike`, only prompts of equal length go together, so that nothing is padded.
    """
    groups = groupby(requests, key=lambda request: len(request.prompt_ids) if alike else 0)
    return [done for _, group in groups for done in _complete(policy, list(group), sampling)]


class _Draw(LogitsProcessor):
    """Draws a token for each row, and gives all others the logit -inf."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        check_stop()
        self.rows.take(scores)
        chosen_BV = torch.full_like(scores, -torch.inf)
        return chosen_BV.scatter_(1, self.rows.token_B[:, None], 0.0)


def _complete(policy: Policy, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
    batch = policy.collate([(request.prompt_ids, ()) for request in requests])
    mask_BL = batch.attention_mask_BS
    stop_ids = torch.tensor(sorted(policy.vocabulary.stop_ids), device=policy.device)
    rows = Rows([request.seed for request in requests], mask_BL, stop_ids, sampling)
    # The layers themselves hold an adapter. Called by its wrapper, peft changes settings for good.
    model = policy.model.get_base_model() if policy.adapter else policy.model
    settings = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(policy.vocabulary.stop_ids),
        pad_token_id=policy.vocabulary.pad_id,
    )
    padded = {} if bool(mask_BL.all()) else {"attention_mask": mask_BL}
    with quiet_transformers(), _settings_of(model, settings):
        model.generate(batch.input_ids_BS, logits_processor=[_Draw(rows)], **padded)
    return rows.completions()


@contextmanager
def _settings_of(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Puts these in place of the model's own, whose penalties `generate` would apply unasked."""
    before = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = before
