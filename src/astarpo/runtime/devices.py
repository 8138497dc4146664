"""Which device this process computes on. Torch is imported once that is asked."""

from typing import TYPE_CHECKING

from astarpo.runtime.launch import read_launch
from astarpo.types import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> "torch.device":
    """The named device; `auto` is CUDA where there is one, of which each rank has one of its own.

    Raises:
        UserError: CUDA is asked for and not there, or there are fewer GPUs than ranks here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: PyTorch sees no GPU here; use --device cpu")
    launch = read_launch()
    if name != "cuda" or launch.size == 1:
        return torch.device(name)
    num_devices = torch.cuda.device_count()
    if launch.local_size > num_devices:
        raise UserError(
            f"{launch.local_size} processes on this machine and {num_devices} GPUs: give torchrun "
            f"--nproc-per-node {num_devices}, or --device cpu"
        )
    return torch.device("cuda", launch.local_rank)
