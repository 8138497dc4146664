"""Completions to tensors.

Shapes: _B sequences, _S prompt and response together, _T response tokens.
A row is its prompt, padded on the left, then its response, padded on the right, so all responses
start in one column. Masks come from lengths, never from token ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """Sequences as tensors.

    Attributes:
        input_ids_BS: [B, S] prompts and responses.
        attention_mask_BS: [B, S], 1 on prompt and response.
        position_ids_BS: [B, S], from 0 at each row's first prompt token.
        response_ids_BT: [B, T], the last T columns of `input_ids_BS`.
        mask_BT: [B, T], True on the response's own tokens.
    """

    input_ids_BS: Tensor
    attention_mask_BS: Tensor
    position_ids_BS: Tensor
    response_ids_BT: Tensor
    mask_BT: Tensor


def collate(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    pad_id: int,
    device: torch.device,
) -> TokenBatch:
    """Pads sequences into one batch.

    Args:
        prompts: Token ids of each row's prompt, at least one each.
        responses: Token ids of each row's response.
        pad_id: Fills the gaps; what it is does not matter.
        device: Where the tensors go.
    """
    prompt_lengths_B = torch.tensor([len(p) for p in prompts])
    response_lengths_B = torch.tensor([len(r) for r in responses])
    prompt_width, response_width = int(prompt_lengths_B.max()), int(response_lengths_B.max())
    rows = [
        [pad_id] * (prompt_width - len(p)) + [*p, *r] + [pad_id] * (response_width - len(r))
        for p, r in zip(prompts, responses, strict=True)
    ]
    column_S = torch.arange(prompt_width + response_width)
    position_ids_BS = column_S - (prompt_width - prompt_lengths_B)[:, None]
    before_end_BS = column_S < (prompt_width + response_lengths_B)[:, None]
    input_ids_BS = torch.tensor(rows, dtype=torch.long)
    return TokenBatch(
        input_ids_BS=input_ids_BS.to(device),
        attention_mask_BS=((position_ids_BS >= 0) & before_end_BS).long().to(device),
        position_ids_BS=position_ids_BS.clamp(min=0).to(device),
        response_ids_BT=input_ids_BS[:, prompt_width:].to(device),
        mask_BT=before_end_BS[:, prompt_width:].to(device),
    )


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Cuts sequences into micro-batches of similar length.

    Args:
        lengths: Tokens of each sequence, prompt and response.
        max_tokens: Budget of a micro-batch, padding included; a longer sequence goes alone.

    Returns:
        Indices into `lengths`, each exactly once, longest sequences first (so that a lack of
        memory shows at once).
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sums over each response's own tokens: [B]. Outside the mask may stand anything, even nan."""
    return values_BT.masked_fill(~mask_BT, 0.0).sum(dim=-1)
