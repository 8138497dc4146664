"""All of the work in one process: what several must do as well, and what they keep to."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from astarpo.runtime.locks import folder_lock
from astarpo.runtime.shares import shares
from astarpo.types import UserError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")


@dataclass(frozen=True)
class OneProcess:
    """All of the work, in this process; `distributed.Ranks` is for several.

    So that results do not depend on their number:

    - `share` gives each process neighbours, rank after rank, and every item to exactly one process;
      `gather` puts the parts together in the order of the ranks, which is then that of the items.
    - Every process calls these methods equally often and in the same order.
    - A decision that depends on a clock or a signal, which differ by process, is made by `agree` or
      `any`. One made from gathered answers and the metrics that follow from them needs neither.
    - What is written is written by the first process alone. Shards of a value table are the
      exception: each process writes those that it samples, under names of their own.

    Attributes:
        device: Where this process keeps its models; not to be asked where none was named.
    """

    device: "torch.device"

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

    def sum(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """Adds up a tensor over all processes, in place; returns it."""
        return tensor

    def barrier(self) -> None:
        """Waits until every process has come here."""

    def together(self) -> AbstractContextManager[None]:
        """Context of work that each process does: once one of them fails in it, all have failed.

        Leaving it waits for the others. An error raised in it is raised in every process.
        """
        return nullcontext()

    def alike(self) -> AbstractContextManager[None]:
        """As `together`, of work that no signal may end in one process and not in another."""
        return nullcontext()

    def first(self, work: Callable[[], Item]) -> Item:
        """What the first process finds by a call that it makes alone, or the error that it gets."""
        return work()

    def locked(self, path: Path) -> AbstractContextManager[Any]:
        """Locks a folder, once, for the work of all processes; see `folder_lock`."""
        return folder_lock(path)

    def require_alike(self, facts: Mapping[str, Any]) -> None:
        """Checks that every process was given the same.

        Args:
            facts: By names that a user understands, such as `setting lr`.

        Raises:
            UserError: One was not; rank and name are told.
        """

    def require_work(self, count: int, what: str) -> None:
        """Checks that there is something to do for every process.

        Raises:
            UserError: There are more processes than so many things, such as `prompts`.
        """
        if count < self.size:
            raise UserError(
                f"{self.size} ranks and {count} {what}: start at most {count}, by torchrun "
                f"--nproc-per-node {count}"
            )

    def settle(self, error: BaseException) -> None:
        """Tells the other processes of an error that ends this one, where they do not know it."""

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
