from dataclasses import fields

import pytest
import torch
from torch.overrides import TorchFunctionMode

from astarpo.models.batch import Packed, TokenBatch, collate
from astarpo.runtime.transfer import send

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class PretendedGPU(TorchFunctionMode):
    """Takes what is sent to a GPU, on a machine that has none.

    Attributes:
        sent: What would lie on the GPU, with the arguments of its copy.
        pinned: Ids of the tensors that were pinned, and those tensors.
    """

    def __init__(self):
        super().__init__()
        self.sent, self.pinned = [], {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_gpu = {id(tensor) for tensor, *_ in self.sent}
        assert not any(id(each) in on_gpu for each in args), f"{func} would run on the GPU"
        if func is torch.Tensor.pin_memory:
            assert args[0].is_contiguous(), "a gap in it is copied once more, not pinned"
            pinned = args[0].clone()
            self.pinned[id(pinned)] = pinned
            return pinned
        if func is torch.Tensor.to and CUDA in (*args, *kwargs.values()):
            copy = args[0].clone()
            self.sent.append((copy, id(args[0]) in self.pinned, kwargs))
            return copy
        assert CUDA not in kwargs.values(), f"{func} would make Python wait for the GPU"
        return func(*args, **kwargs)


def tensors(batch):
    for each in fields(batch):
        value = getattr(batch, each.name)
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Packed):
            yield from tensors(value)


def test_on_the_cpu_nothing_is_copied():
    given = torch.arange(6)
    assert send(given, CPU) is given


@pytest.mark.parametrize("responses", [[[1, 2], [3, 4, 11]], [[], []]])
def test_all_of_a_batch_is_pinned_and_copied_to_a_gpu_without_waiting(responses):
    prompts = [[5, 6, 7], [8]]
    there = collate(prompts, responses, pad_id=0, device=CPU)
    with PretendedGPU() as gpu:
        here: TokenBatch = collate(prompts, responses, pad_id=0, device=CUDA)
    assert [(pinned, kwargs) for _, pinned, kwargs in gpu.sent] == [
        (True, {"non_blocking": True})
    ] * len(gpu.sent)
    sent = {id(tensor) for tensor, *_ in gpu.sent}
    assert {id(tensor) for tensor in tensors(here)} == sent
    assert len(sent) == 11
    assert all(map(torch.equal, tensors(here), tensors(there)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_what_was_sent():
    given = torch.arange(20).view(4, 5)
    for each in (given, given[:, 2:], given[:0]):
        there = send(each, CUDA)
        assert there.is_cuda
        assert torch.equal(there.cpu(), each)
