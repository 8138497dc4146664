"""The state of completions while they are decoded, whatever decodes them.

Shapes: _B rows being decoded, _R requests, _T tokens of a response, _L columns of prompts,
_V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from astarpo.engines.base import Sampling
from astarpo.engines.tokens import choose_tokens
from astarpo.runtime.seeding import uniforms
from astarpo.runtime.transfer import send
from astarpo.types import Completion


class Rows:
    """What a decoding loop knows of its rows, kept on the device so that nothing waits for it.

    Attributes:
        token_B: [B] the newest token.
        position_B: [B] its position in the sequence.
        mask_BL: [B, L] 1 on the columns that a row has, of its prompt and of all that it may write.
        live_B: [B] whether neither it nor a token before it is a stop id.
    """

    def __init__(
        self, seeds: Sequence[int], mask_BL: Tensor, stop_ids: Tensor, sampling: Sampling
    ) -> None:
        device, limit = mask_BL.device, sampling.max_new_tokens
        self._sampling = sampling
        self._stop_ids = stop_ids
        noise_RT = torch.from_numpy(np.stack([uniforms(s, limit) for s in seeds]))
        self._noise_RT = send(noise_RT, device)
        self._tokens_RT = torch.zeros(self._noise_RT.shape, dtype=torch.long, device=device)
        self._logprobs_RT = torch.zeros(self._noise_RT.shape, device=device)
        self._column = 0
        self._request_B = torch.arange(len(seeds), device=device)
        self.mask_BL = nn.functional.pad(mask_BL, (0, limit), value=1)  # what is generated is seen
        self.token_B = torch.zeros_like(self._request_B)
        self.position_B = mask_BL.sum(dim=-1) - 1
        self.live_B = torch.ones_like(self._request_B, dtype=torch.bool)

    def take(self, logits_BV: Tensor) -> None:
        """Draws each row's next token."""
        at = (self._request_B, self._column)
        token_B, logprob_B = choose_tokens(logits_BV, self._noise_RT[at], self._sampling)
        self._tokens_RT[at] = token_B
        self._logprobs_RT[at] = logprob_B
        self.token_B = token_B
        self.live_B &= (token_B[:, None] != self._stop_ids).all(dim=-1)
        self.position_B += 1
        self._column += 1

    def keep(self, keep: Tensor) -> None:
        """Goes on with these rows, in this order."""
        for name in ("_request_B", "mask_BL", "token_B", "position_B", "live_B"):
            setattr(self, name, getattr(self, name)[keep])

    def completions(self) -> list[Completion]:
        """Every request's tokens up to its first stop id."""
        stops_RT = torch.isin(self._tokens_RT, self._stop_ids)
        stopped_R = stops_RT.any(dim=-1)
        limit = self._tokens_RT.shape[1]
        lengths_R = torch.where(stopped_R, stops_RT.int().argmax(dim=-1) + 1, limit)
        values = (self._tokens_RT, self._logprobs_RT, lengths_R, stopped_R)
        return [
            Completion(tuple(ids[:n]), tuple(logprobs[:n]), "stop" if stopped else "length")
            for ids, logprobs, n, stopped in zip(*(v.tolist() for v in values), strict=True)
        ]
