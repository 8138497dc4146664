"""A key-value cache with room to grow: writing a token does not copy those before it.

Shapes: _B rows being decoded, _H heads, _L tokens, _D size of a head.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_LEAST_ROOM = 16


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, each a view of a buffer with columns to spare.

    When the columns are used up, the rows still being decoded move to a buffer a quarter longer:
    memory follows what is generated, not the limit. transformers' own layer concatenates at every
    token instead, and copies every row to drop one.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends the newest tokens, [B, H, new, D]; returns all keys and values, [B, H, L, D]."""
        start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = [_with_room(key_states, end), _with_room(value_states, end)]
            return self._view(len(key_states), end)
        if end > self._buffers[0].shape[-2]:
            held = [buffer[: len(key_states), :, :start] for buffer in self._buffers]
            self._buffers = [_with_room(states_BHLD, end) for states_BHLD in held]
        for buffer, states_BHLD in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: len(states_BHLD), :, start:end] = states_BHLD
        return self._view(len(key_states), end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows, in this order; a row already at its place costs nothing."""
        length = self.get_seq_length()
        if len(indices) > len(self._buffers[0]):  # rows are repeated
            held = [buffer[indices, :, :length] for buffer in self._buffers]
            self._buffers = [_with_room(states_BHLD, length) for states_BHLD in held]
        else:
            place_B = torch.arange(len(indices), device=indices.device)
            moved = (indices != place_B).nonzero().squeeze(-1)
            for buffer in self._buffers:
                buffer[moved, :, :length] = buffer[indices[moved], :, :length]
        self._view(len(indices), length)

    def _view(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:rows, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def roomy_cache(config: Any) -> DynamicCache:
    """A cache for a model: roomy in its layers of full attention, transformers' own in all others.

    Args:
        config: The model's.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def _with_room(states_BHLD: Tensor, needed: int) -> Tensor:
    """A buffer that begins with these tokens and holds more than the needed number."""
    rows, heads, length, size = states_BHLD.shape
    capacity = needed + max(_LEAST_ROOM, needed // 4)
    buffer_BHLD = states_BHLD.new_empty(rows, heads, capacity, size)
    buffer_BHLD[:, :, :length] = states_BHLD
    return buffer_BHLD
