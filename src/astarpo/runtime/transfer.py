"""Copies from host memory to a device, for which Python does not wait."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on another device; a tensor for the CPU is returned as it is.

    A GPU fetches only pinned memory by itself: of any other, Python waits until it is copied and
    until all work before it is done. PyTorch keeps pinned memory until the copy has been made.
    """
    if device.type != "cuda":
        return tensor.to(device)
    # What is not contiguous would be copied once more, into memory that is not pinned.
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
