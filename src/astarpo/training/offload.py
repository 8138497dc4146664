"""Weights that wait in host memory until they are needed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class ParkedWeights:
    """Keeps a frozen model's parameters off its device but while they are in use.

    The host has the only lasting copy and nothing is ever copied back, since nothing changes. Where
    the model is on the CPU already nothing is gained or lost.
    """

    def __init__(self, model: nn.Module) -> None:
        """Moves the parameters of a model to the host; buffers, which are small, stay.

        Args:
            model: Frozen.
        """
        parameters = list(model.parameters())
        self._device = parameters[0].device
        self._parked = [(parameter, _on_host(parameter.data)) for parameter in parameters]
        self._leave()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Has the weights on the model's own device for a block."""
        for parameter, host in self._parked:
            parameter.data = host.to(self._device, non_blocking=True)
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        for parameter, host in self._parked:
            parameter.data = host


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    host = tensor.to("cpu")
    return host.pin_memory() if tensor.is_cuda else host  # pinned memory is copied from far faster
