"""Where the work runs: the one place that knows how many processes share it.

Training and stage 1 ask it which part of the work is theirs, put the parts together again, and make
the decisions that all processes must make alike. Today there is one process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Item = TypeVar("Item")


@dataclass(frozen=True)
class OneProcess:
    """All of the work, in this process.

    What a version for several processes must keep, so that results do not depend on their number:

    - `share` gives each process neighbours, rank after rank, and every item to exactly one process;
      `gather` puts the parts together in the order of the ranks, which is then that of the items.
    - Every process calls `share`, `gather`, `agree` and `any` equally often and in the same order.
    - A decision that depends on a clock or a signal, which differ by process, is made by `agree` or
      `any`. One made from gathered answers and the metrics that follow from them needs neither.
    - What is written is written by the first process alone. Shards of a value table are the
      exception: each process writes those that it samples, under names of their own.

    Attributes:
        device: Where this process keeps its models.
    """

    device: torch.device

    rank = 0
    """This process's number, from 0."""

    size = 1
    """How many processes there are."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes what there is to be only once."""
        return self.rank == 0

    def share(self, lengths: Sequence[int]) -> range:
        """Which items are this process's, so that all processes have about equally much to do.

        Args:
            lengths: How much work each item is, such as its tokens.
        """
        return range(len(lengths))

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order in which `share` gave them out."""
        return list(items)

    def agree(self, value: Item) -> Item:
        """The first process's value, for all."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag
