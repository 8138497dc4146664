"""Where the work runs: the one place that knows how many processes share it.

Training, stage 1 and evaluation ask it which part of the work is theirs, put the parts together
again, and make the decisions that all processes must make alike. One process needs none of that,
and connects to nothing; several are started by torchrun, each one a rank.

    with open_ranks("auto") as where:
        mine = [prompts[i] for i in where.share(lengths)]
        with where.together():
            answers = sample(mine)
        answers = where.gather(answers)

An error of one rank becomes the error of all: they learn of it where they next meet.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from astarpo.runtime.connection import Connection, connect
from astarpo.runtime.devices import pick_device
from astarpo.runtime.launch import read_launch
from astarpo.runtime.locks import folder_lock
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.stopping import hold_stop
from astarpo.types import UserError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks(OneProcess):
    """One of several processes, which torch.distributed connects.

    Attributes:
        connection: To the others.
    """

    connection: Connection

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return self.connection.rank

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.connection.size

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order in which `share` gave them out."""
        parts = self.connection.exchange("gather", list(items))
        return [item for part in parts for item in part]

    def agree(self, value: Item) -> Item:
        """The first process's value, for all."""
        return self.connection.exchange("agree", value if self.is_first else None)[0]

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return any(self.connection.exchange("any", flag))

    def sum(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """Adds up a tensor over all processes, in place; returns it."""
        from torch.distributed import all_reduce

        all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Waits until every process has come here."""
        self.connection.exchange("barrier")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Context of work that each process does: once one of them fails in it, all have failed."""
        try:
            yield
        except BaseException as error:
            self.connection.fail(error)
        else:
            self.connection.exchange("together")

    @contextmanager
    def alike(self) -> Iterator[None]:
        """As `together`, of work that no signal may end in one process and not in another."""
        with self.together(), hold_stop():
            yield

    def first(self, work: Callable[[], Item]) -> Item:
        """What the first process finds by a call that it makes alone, or the error that it gets."""
        found = None
        try:
            found = work() if self.is_first else None
        except BaseException as error:
            self.connection.fail(error)
        return self.connection.exchange("first", found)[0]

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Locks a folder, once, for the work of all processes; see `folder_lock`."""
        with ExitStack() as held:
            with self.together():
                if self.is_first:
                    held.enter_context(folder_lock(path))
            yield
            self.barrier()  # Nobody works in it any more.

    def require_alike(self, facts: Mapping[str, Any]) -> None:
        """Checks that every process was given the same; rank and name are told where not."""
        everyone = self.connection.exchange("facts", dict(facts))
        unlike = [
            (name, value, theirs.get(name), rank)
            for rank, theirs in enumerate(everyone)
            for name, value in everyone[0].items()
            if theirs.get(name) != value
        ]
        if unlike:
            name, value, other, rank = unlike[0]
            text = f"{name} is {value!r} on rank 0 and {other!r} on rank {rank}"
            raise self.connection.agreed_error(UserError(f"{text}: give all ranks the same"))

    def settle(self, error: BaseException) -> None:
        """Tells the other processes of an error that ends this one, where they do not know it."""
        self.connection.settle(error)

    def mesh(self, shard: int | None = None) -> Any:
        """The processes as a `DeviceMesh` of the dimensions `replicate` and `shard`."""
        from torch.distributed.device_mesh import init_device_mesh

        super().mesh(shard)
        shape = (self.size // (shard or self.size), shard or self.size)
        names = ("replicate", "shard")
        return init_device_mesh(self.device.type, shape, mesh_dim_names=names)


_connections: list[Connection] = []


@contextmanager
def open_ranks(device: str | None = None) -> Iterator[OneProcess]:
    """Connects the processes that torchrun has started, until the block ends.

    Inside another such block it uses that one's connection, and a group of torch.distributed that
    is there already, as in a worker of Ray Train, is left open.

    Args:
        device: Where models are to be, as settings name it; of GPUs each rank has its own. None
            where no model is needed.

    Raises:
        UserError: The variables of torchrun do not fit, the device is not there, or there are fewer
            GPUs than ranks here.
    """
    if read_launch().size == 1:
        yield OneProcess(_place(device))
    elif _connections:
        yield _on(device, _connections[-1])
    else:
        connection = connect()
        _connections.append(connection)
        try:
            yield _on(device, connection)
        except BaseException as error:
            connection.settle(error)
            raise
        finally:
            _connections.remove(connection)
            connection.close()


def _on(device: str | None, connection: Connection) -> Ranks:
    ranks = Ranks(_place(None), connection)
    with ranks.together():
        place = _place(device)
        if device is not None and place.type == "cuda":
            from torch.cuda import set_device

            set_device(place)
    return Ranks(place, connection)


def _place(device: str | None) -> "torch.device":
    return pick_device(device) if device is not None else cast("torch.device", None)
