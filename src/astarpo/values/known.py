"""What a finished value table knows of its problems, without their file. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa


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


def known_problems(samples: pa.Table, ids: Sequence[str]) -> list[KnownProblem]:
    """Problems in the order of their ids.

    Args:
        samples: Columns `problem_id` and `problem_digest`.
        ids: Of problems wanted.
    """
    rows = samples.to_pydict()
    digests = dict(zip(rows["problem_id"], rows["problem_digest"], strict=True))
    return [KnownProblem(each, digests[each]) for each in ids]
