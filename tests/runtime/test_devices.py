import pytest
import torch

from astarpo.runtime.devices import pick_device
from astarpo.types import UserError


@pytest.fixture
def ranks(monkeypatch):
    """The second of three ranks on a machine with GPUs, as far as PyTorch says."""
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name, value in zip(names, ("3", "1", "1", "3", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_each_rank_has_a_gpu_of_its_own(ranks):
    ranks(3)
    assert pick_device("auto") == torch.device("cuda", 1)
    assert pick_device("cpu") == torch.device("cpu")


def test_fewer_gpus_than_ranks_are_refused(ranks):
    ranks(2)
    with pytest.raises(UserError, match="3 processes on this machine and 2 GPUs: give torchrun"):
        pick_device("cuda")
    assert pick_device("cpu") == torch.device("cpu")  # what the line says to do
