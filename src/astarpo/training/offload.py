"""Weights that stay in host memory until they are needed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class ParkedWeights:
    """Keeps a frozen model's parameters in host memory, except while they are in use.

    They never change, so nothing is copied back. For a model on the CPU it makes no difference.
    """

    def __init__(self, model: nn.Module) -> None:
        """Moves the parameters of a frozen model to the host; buffers, which are small, stay."""
        parameters = list(model.parameters())
        self._device = parameters[0].device
        self._parked = [(parameter, _on_host(parameter.data)) for parameter in parameters]
        self._leave()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Puts the weights onto the model's own device for the length of a block."""
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
