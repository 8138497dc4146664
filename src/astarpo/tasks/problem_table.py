"""Problems as they stand in a file: columns in memory, an object only for those that are asked for.

A million `Problem` objects take gigabytes and most of a minute. As Arrow columns they take little
more than their text, and what is wanted of all of them at once is had without making any.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from astarpo.types import Problem

_AT_A_TIME = 1024
_TRUTH = ("reward_model", "ground_truth")

Read = Callable[[Mapping[str, Any], str], Problem]
"""Makes a problem of a row and its id."""


class ProblemTable(Sequence[Problem]):
    """A problem set whose problems are made when they are asked for.

    It equals any sequence of the same problems. A slice is one too, and copies no text.

    Attributes:
        ids: [P] of the problems, in order.

    Example:
        problems = read_problems(Path("train.parquet"))
        problems[0].ground_truth, len(problems[:1000]), problems.ids
    """

    def __init__(
        self,
        batches: Sequence[pa.RecordBatch],
        ids: pa.StringArray,
        read: Read,
        places: NDArray[np.int64] | None = None,
    ) -> None:
        """Takes columns.

        Args:
            batches: Rows in verl's schema.
            ids: [P] of the problems.
            read: Makes a problem of a row.
            places: [P] their rows; None for all rows in order.
        """
        self.ids = ids
        self._batches = batches
        self._starts = np.array([0, *accumulate(len(batch) for batch in batches)])
        self._read = read
        self._places = np.arange(len(ids)) if places is None else places

    def take(self, places: ArrayLike) -> "ProblemTable":
        """The problems at some places, or where a mask [P] is true."""
        chosen = np.arange(len(self))[np.asarray(places)]
        if len(chosen) == len(self) and (np.diff(chosen) == 1).all():
            return self
        ids = self.ids.take(pa.array(chosen))
        taken = ProblemTable(self._batches, ids, self._read, self._places[chosen])
        if "digests" in vars(self):
            vars(taken)["digests"] = self.digests.take(pa.array(chosen))
        return taken

    @cached_property
    def digests(self) -> pa.StringArray:
        """[P] what `Problem.digest` says of each."""
        return pa.array((problem.digest for problem in self), pa.string(), size=len(self))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Problem: ...

    @overload
    def __getitem__(self, place: slice) -> "ProblemTable": ...

    def __getitem__(self, place: int | slice) -> "Problem | ProblemTable":
        """One problem, or those of a slice."""
        chosen = range(len(self))[place]  # IndexError beyond the last
        if isinstance(chosen, range):
            return self.take(chosen)
        return next(self._made(chosen, chosen + 1))

    def __iter__(self) -> Iterator[Problem]:
        for first in range(0, len(self), _AT_A_TIME):
            yield from self._made(first, min(first + _AT_A_TIME, len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def column(self, *path: str) -> pa.ChunkedArray:
        """[P] a column of the file, or a field of one; the rows that are asked for alone."""
        chunks = []
        for batch in self._batches:
            array = batch.column(path[0])
            for name in path[1:]:
                array = array.field(name)
            chunks.append(array)
        whole = pa.chunked_array(chunks)
        return whole if len(self) == len(whole) else whole.take(pa.array(self._places))

    def _made(self, first: int, last: int) -> Iterator[Problem]:
        """The problems of a range; rows of one batch are read together."""
        rows = self._places[first:last]
        number = np.searchsorted(self._starts, rows, side="right") - 1
        names = iter(self.ids.slice(first, last - first).to_pylist())
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(number)) + 1):
            batch, start = self._batches[number[part[0]]], self._starts[number[part[0]]]
            local = rows[part] - start
            if local[-1] - local[0] == len(local) - 1 and (np.diff(local) == 1).all():
                chosen = batch.slice(int(local[0]), len(local))
            else:
                chosen = batch.take(pa.array(local))
            yield from map(self._read, chosen.to_pylist(), names)


def ground_truths(problems: Sequence[Problem]) -> dict[str, set[str]]:
    """The different ground truths of the problems of each data source."""
    found: dict[str, set[str]] = {}
    if isinstance(problems, ProblemTable):
        columns = [problems.column(*path) for path in (("data_source",), _TRUTH)]
        if all(pa.types.is_string(column.type) for column in columns):
            pairs = pa.table(columns, ["source", "truth"]).group_by(["source", "truth"])
            rows = pairs.aggregate([]).to_pydict()
            for source, truth in zip(rows["source"], rows["truth"], strict=True):
                found.setdefault(source, set()).add(truth)
            return found
    for problem in problems:
        found.setdefault(problem.data_source, set()).add(problem.ground_truth)
    return found
