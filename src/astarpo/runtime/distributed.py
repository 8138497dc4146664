"""Where the work runs: the one place that knows how many processes share it.

Training, stage 1 and evaluation ask it which part of the work is theirs, put the parts together
again, and make the decisions that all processes must make alike. One process needs none of that,
and connects to nothing; several are started by torchrun, each one a rank.

    with open_ranks("auto") as where:
        mine = [prompts[i] for i in where.share(lengths)]
        answers = where.gather(sample(mine))
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from astarpo.runtime.launch import rank_timeout, read_launch
from astarpo.types import UserError

Item = TypeVar("Item")


@dataclass(frozen=True)
class OneProcess:
    """All of the work, in this process; `Ranks` is for several.

    So that results do not depend on their number:

    - `share` gives each process neighbours, rank after rank, and every item to exactly one process;
      `gather` puts the parts together in the order of the ranks, which is then that of the items.
    - Every process calls these methods equally often and in the same order.
    - A decision that depends on a clock or a signal, which differ by process, is made by `agree` or
      `any`. One made from gathered answers and the metrics that follow from them needs neither.
    - What is written is written by the first process alone. Shards of a value table are the
      exception: each process writes those that it samples, under names of their own.

    Attributes:
        device: Where this process keeps its models.
    """

    device: torch.device

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return 0

    @property
    def size(self) -> int:
        """How many processes there are."""
        return 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what there is to be only once."""
        return self.rank == 0

    def share(self, lengths: Sequence[int]) -> range:
        """Which items are this process's, so that all processes have about equally much to do.

        Args:
            lengths: How much work each item is, such as its tokens.
        """
        return shares(lengths, self.size)[self.rank]

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order in which `share` gave them out."""
        return list(items)

    def agree(self, value: Item) -> Item:
        """The first process's value, for all."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds up a tensor over all processes, in place; returns it."""
        return tensor

    def barrier(self) -> None:
        """Waits until every process has come here."""

    def mesh(self, shard: int | None = None) -> Any:
        """The processes as a `DeviceMesh` of the dimensions `replicate` and `shard`.

        Args:
            shard: How many processes share one copy of a model; None for all.

        Returns:
            None where there is one process, which has nothing to share.

        Raises:
            UserError: The number of processes is not a multiple of it.
        """
        if self.size % (shard or self.size):
            raise UserError(
                f"{self.size} processes cannot be cut into groups of {shard}: start a multiple of "
                f"{shard}, or give a number that divides {self.size}"
            )
        return None


class Ranks(OneProcess):
    """One of several processes, which torch.distributed connects."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return dist.get_rank()

    @property
    def size(self) -> int:
        """How many processes there are."""
        return dist.get_world_size()

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order in which `share` gave them out."""
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def agree(self, value: Item) -> Item:
        """The first process's value, for all."""
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return any(self.gather([flag]))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds up a tensor over all processes, in place; returns it."""
        dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Waits until every process has come here."""
        self.gather([None])

    def mesh(self, shard: int | None = None) -> Any:
        """The processes as a `DeviceMesh` of the dimensions `replicate` and `shard`."""
        from torch.distributed.device_mesh import init_device_mesh

        super().mesh(shard)
        shape = (self.size // (shard or self.size), shard or self.size)
        names = ("replicate", "shard")
        return init_device_mesh(self.device.type, shape, mesh_dim_names=names)


@contextmanager
def open_ranks(device: torch.device) -> Iterator[OneProcess]:
    """Connects the processes that torchrun has started, until the block ends.

    A group that is there already, as in a worker of Ray Train or inside another such block, is
    used and left open.

    Args:
        device: Where models are to be; of a GPU without a number the one of this rank.

    Raises:
        UserError: The variables of torchrun do not fit, or there are fewer GPUs than ranks here.
    """
    launch = read_launch()
    if launch.size == 1:
        yield OneProcess(device)
        return
    if device.type == "cuda":
        num_devices = torch.cuda.device_count()
        if launch.local_size > num_devices:
            raise UserError(
                f"{launch.local_size} processes on this machine and {num_devices} GPUs: give "
                f"torchrun --nproc-per-node {num_devices}, or --device cpu"
            )
        device = torch.device("cuda", launch.local_rank)
        torch.cuda.set_device(device)
    if dist.is_initialized():
        yield Ranks(device)
        return
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
    timeout = timedelta(seconds=rank_timeout())
    dist.init_process_group(backend, timeout=timeout)
    try:
        yield Ranks(device)
    finally:
        dist.destroy_process_group()


def shares(lengths: Sequence[int], size: int) -> list[range]:
    """Cuts items into one run of neighbours for each of so many ranks, of about equal length.

    An item goes where its middle falls, so that no rank has more than its share and one item.

    Args:
        lengths: How much work each item is.
        size: How many ranks there are; with fewer items some of them get none.
    """
    ends = list(accumulate(lengths))
    total = ends[-1] if ends else 0
    if total == 0:  # Nothing is known of them: so many each.
        return shares([1] * len(lengths), size) if lengths else [range(0)] * size
    middles = [end - length / 2 for end, length in zip(ends, lengths, strict=True)]
    owner = [min(size - 1, int(middle * size / total)) for middle in middles]
    edges = [next((i for i, o in enumerate(owner) if o >= r), len(owner)) for r in range(size)]
    return [range(start, end) for start, end in zip(edges, [*edges[1:], len(owner)], strict=True)]
