"""What is needed of problems to find their samples: ids and digests, all at once.

Imports no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astarpo.tasks.problem_table import ProblemTable


class Sampled(Protocol):
    """What is needed of a problem to find its samples."""

    @property
    def id(self) -> str:
        """Unique within a problem set."""
        ...

    @property
    def digest(self) -> str:
        """Of what is asked and how it is judged."""
        ...


class KnownProblem(NamedTuple):
    """A problem of which there are samples, by what these say of it."""

    id: str
    digest: str


@dataclass(frozen=True, eq=False)
class KnownProblems(Sequence[KnownProblem]):
    """Problems of which there are samples, as columns.

    Attributes:
        ids: [P], each once.
        digests: [P]
    """

    ids: pa.StringArray
    digests: pa.StringArray

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> KnownProblem: ...

    @overload
    def __getitem__(self, place: slice) -> "KnownProblems": ...

    def __getitem__(self, place: int | slice) -> "KnownProblem | KnownProblems":
        """One problem, or those of a slice."""
        if isinstance(place, slice):
            return KnownProblems(self.ids[place], self.digests[place])
        return KnownProblem(self.ids[place].as_py(), self.digests[place].as_py())

    def __iter__(self) -> Iterator[KnownProblem]:
        pairs = zip(self.ids.to_pylist(), self.digests.to_pylist(), strict=True)
        return (KnownProblem(*pair) for pair in pairs)


def ids_of(problems: Sequence[Sampled]) -> pa.StringArray:
    """[P] the ids of problems."""
    if isinstance(problems, ProblemTable | KnownProblems):
        return problems.ids
    return pa.array([problem.id for problem in problems], pa.string())


def digests_of(problems: Sequence[Sampled]) -> pa.StringArray:
    """[P] the digests of problems."""
    if isinstance(problems, ProblemTable | KnownProblems):
        return problems.digests
    return pa.array([problem.digest for problem in problems], pa.string())


def known_problems(samples: pa.Table, ids: Sequence[str] | pa.StringArray) -> KnownProblems:
    """Problems in the order of their ids.

    Args:
        samples: Columns `problem_id` and `problem_digest`.
        ids: Of problems wanted; there are samples of each.
    """
    ids = pa.array(ids, pa.string()) if not isinstance(ids, pa.Array) else ids
    place_R = places(samples["problem_id"], ids)
    row_P = np.zeros(len(ids), np.int64)
    row_P[place_R[place_R >= 0]] = np.flatnonzero(place_R >= 0)
    digests = samples["problem_digest"].take(pa.array(row_P)).cast(pa.string())
    return KnownProblems(ids, pa.concat_arrays(digests.chunks))


def coded(rows: pa.Table) -> pa.Table:
    """The rows of one file with codes in the place of texts: each different text is there once."""
    for number, field in enumerate(rows.schema):
        if pa.types.is_string(field.type):
            codes = rows.column(number).combine_chunks().dictionary_encode()
            rows = rows.set_column(number, field.name, codes)
    return rows


def places(column: pa.ChunkedArray, names: pa.StringArray) -> NDArray[np.int32]:
    """[R] the place in `names` of each entry of a column, texts or codes; -1 where it is none.

    Every different text of a chunk is looked up once.
    """
    if not pa.types.is_dictionary(column.type):
        column = pa.chunked_array([column.combine_chunks().dictionary_encode()])
    if not column.num_chunks:
        return np.zeros(0, np.int32)
    words = pa.concat_arrays([chunk.dictionary for chunk in column.chunks])
    found = pc.call_function("index_in", [words], pc.SetLookupOptions(names))
    place_W = found.fill_null(-1).to_numpy(zero_copy_only=False)
    place_R = np.empty(len(column), np.int32)
    row = word = 0
    for chunk in column.chunks:
        size = len(chunk.dictionary)
        codes = chunk.indices if not chunk.null_count else chunk.indices.fill_null(size)
        own_W = np.append(place_W[word : word + size], np.int32(-1))
        place_R[row : row + len(chunk)] = own_W[codes.to_numpy()]
        row, word = row + len(chunk), word + size
    return place_R


def different(column: pa.ChunkedArray) -> pa.StringArray:
    """The different texts of a column of texts or codes, in the order in which they come."""
    chunks = [c.dictionary if pa.types.is_dictionary(c.type) else c for c in column.chunks]
    return pa.chunked_array(chunks, pa.string()).unique()
