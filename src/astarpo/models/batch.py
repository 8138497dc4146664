"""Token ids of prompts and responses, as tensors.

A row is its prompt, padded on the left, then its response, padded on the right, so that all
responses start in one column. Masks come from lengths, never from token ids. Masks and indices are
computed on the CPU and sent once: computed on a GPU, they would make Python wait for it.

Shapes: _B sequences, _S prompt and response together, _T response tokens; without padding, _N
tokens of all sequences, _R response tokens of all, _K places in the rows of attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from astarpo.runtime.transfer import send


@dataclass(frozen=True)
class Packed:
    """Sequences one after the other without padding, and where each token goes in attention.

    In attention each sequence has a row of its own, which it fills from column 0 on.

    Attributes:
        ids_N: [N] prompts and responses.
        positions_N: [N] each token's position in its sequence, from 0.
        before_R: [R] index into the N tokens of the one before each response token.
        num_rows: B.
        slot_N: [N] each token's place among the K = B x W; W is the length of the longest sequence.
        token_K: [K] index into the N tokens of the one at each place; 0 where there is none.
    """

    ids_N: Tensor
    positions_N: Tensor
    before_R: Tensor
    num_rows: int
    slot_N: Tensor
    token_K: Tensor


@dataclass(frozen=True)
class TokenBatch:
    """Sequences as tensors.

    Attributes:
        input_ids_BS: [B, S] prompts and responses.
        attention_mask_BS: [B, S], 1 on prompt and response.
        position_ids_BS: [B, S], from 0 at each row's first prompt token.
        response_ids_BT: [B, T], the last T columns of `input_ids_BS`.
        mask_BT: [B, T], True on the response's own tokens.
        cell_R: [R] each response token's index into the flattened B x T.
        packed: The same sequences without padding.
        sequences: The B sequences as plain numbers, prompt and response.
        starts: For each of the B, the index in it at which the response begins.
    """

    input_ids_BS: Tensor
    attention_mask_BS: Tensor
    position_ids_BS: Tensor
    response_ids_BT: Tensor
    mask_BT: Tensor
    cell_R: Tensor
    packed: Packed
    sequences: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]

    def at_responses(self, values_R: Tensor) -> Tensor:
        """Puts values of the response tokens, [R], at their places: [B, T], 0 on padding."""
        zeros = values_R.new_zeros(self.mask_BT.numel())
        return zeros.scatter(0, self.cell_R, values_R).view(self.mask_BT.shape)


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
        pad_id: Fills the gaps. Any id will do: padding is masked.
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
    real_BS = (position_ids_BS >= 0) & before_end_BS
    input_ids_BS = torch.tensor(rows, dtype=torch.long)
    mask_BT = before_end_BS[:, prompt_width:]
    return TokenBatch(
        input_ids_BS=send(input_ids_BS, device),
        attention_mask_BS=send(real_BS.long(), device),
        position_ids_BS=send(position_ids_BS.clamp(min=0), device),
        response_ids_BT=send(input_ids_BS[:, prompt_width:], device),
        mask_BT=send(mask_BT, device),
        cell_R=send(mask_BT.flatten().nonzero()[:, 0], device),
        packed=_pack(input_ids_BS, position_ids_BS, real_BS, mask_BT, device),
        sequences=tuple((*p, *r) for p, r in zip(prompts, responses, strict=True)),
        starts=tuple(map(len, prompts)),
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
    """Sums over each response's own tokens: [B]. Values outside the mask are ignored, even nan."""
    return values_BT.masked_fill(~mask_BT, 0.0).sum(dim=-1)


def _pack(
    input_ids_BS: Tensor,
    position_ids_BS: Tensor,
    real_BS: Tensor,
    mask_BT: Tensor,
    device: torch.device,
) -> Packed:
    num_rows, response_width = mask_BT.shape
    lengths_B = real_BS.sum(dim=-1)
    width = int(lengths_B.max())
    positions_N = position_ids_BS[real_BS]
    slot_N = torch.arange(num_rows).repeat_interleave(lengths_B) * width + positions_N
    token_K = torch.zeros(num_rows * width, dtype=torch.long)
    token_K[slot_N] = torch.arange(len(slot_N))
    asked_BS = torch.zeros_like(real_BS)
    asked_BS[:, -response_width - 1 : -1] = mask_BT
    return Packed(
        ids_N=send(input_ids_BS[real_BS], device),
        positions_N=send(positions_N, device),
        before_R=send(asked_BS[real_BS].nonzero()[:, 0], device),
        num_rows=num_rows,
        slot_N=send(slot_N, device),
        token_K=send(token_K, device),
    )
