"""The value table: what stage 1 found, on disk.

    manifest.json      what was sampled, from which model, judged by which verifier
    samples-*.parquet  every sample with its reward, in shards that are written once
    values.parquet     V* of each problem and its number of samples, derived from the rewards

V* follows from raw rewards, so estimator, N and filters change without sampling again. Damage to
any file is noticed; the same `astarpo estimate` restores a shard or manifest that is damaged or
lost.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from astarpo.runtime.files import DamagedFileError, disk_errors, write_sealed_json
from astarpo.runtime.remote import as_path, is_remote
from astarpo.types import Problem, UserError, taken
from astarpo.values.choice import estimator_named
from astarpo.values.derived import PromptLengths, read_counts, write_values, written_values
from astarpo.values.estimators import Estimator, ProblemValues, problem_values
from astarpo.values.known import Sampled, coded, ids_of, known_problems, places
from astarpo.values.manifest import (
    FORMAT,
    MANIFEST,
    description,
    differ_in_verifiers,
    read_manifest,
    require_fit,
    started_manifest,
)
from astarpo.values.rewards import find_changed, require_all, sample_matrices
from astarpo.values.shards import SCHEMA, Sample, Shards, engine_of, read_shard, sample_rows

if TYPE_CHECKING:
    import pandas

_READERS = 16
"""Shards on a store that are read at a time: of a single one most of the time is waiting."""

_AGAIN = "run the same astarpo estimate again"


class ValueTable:
    """A value table that exists on disk.

    Attributes:
        path: Its folder.
        manifest: `fingerprint` (what must fit for the samples to be of use), and facts beside it.

    Example:
        >>> table = ValueTable("values")
        >>> table.to_pandas()[["problem_id", "v_star", "v_star_se", "n"]]
        >>> table.values(estimator=Plugin(beta1=0.25)).v_star_P  # without sampling again
    """

    def __init__(self, path: Path | str, fingerprint: dict[str, Any] | None = None) -> None:
        """Opens a table; `fingerprint` is that of the shards to come, see `start`.

        Raises:
            UserError: There is none, it is damaged, or it is of another format.
        """
        self.path = as_path(path)
        with disk_errors(self.path, "read"):
            is_there = (self.path / MANIFEST).is_file()
        if not is_there:
            raise UserError(
                f"{path}: no value table here (no {MANIFEST}); make one with astarpo estimate"
            )
        try:
            self.manifest = read_manifest(self.path)
        except DamagedFileError as error:
            raise DamagedFileError(f"{error}; {_AGAIN}: it makes this file anew") from error
        self._fingerprint = fingerprint or self.manifest["fingerprint"]
        self._shards = Shards(self.path)

    @classmethod
    def start(
        cls,
        path: Path,
        fingerprint: dict[str, Any],
        facts: dict[str, Any],
        *,
        any_verifier: bool = False,
        heal: bool = True,
    ) -> "ValueTable":
        """Makes a table, or opens the one that is there to go on with it.

        Damaged shards are renamed, with a warning: their samples are then missing.

        Args:
            path: Its folder.
            fingerprint: What the samples depend on.
            facts: Further entries of the manifest, replaced by the latest call's.
            any_verifier: Open it also where other verifiers judged its samples, which marks it as
                unfinished; see `stale_shards`.
            heal: Whether to look for damaged shards, which takes reading them all.

        Raises:
            UserError: The table there has another fingerprint; the differences are named.
        """
        held = started_manifest(path)
        require_fit(held["fingerprint"], fingerprint, path, any_verifier=any_verifier)
        union = held["fingerprint"] | fingerprint
        if any_verifier:
            held.pop("samples", None)
        if not is_remote(path):
            with disk_errors(path):
                path.mkdir(parents=True, exist_ok=True)
        manifest = {**held, **facts, "format": FORMAT, "fingerprint": union}
        write_sealed_json(path / MANIFEST, manifest)
        table = cls(path, fingerprint)
        if heal:
            table.heal()
        return table

    def heal(self, names: Container[str] | None = None) -> None:
        """Renames damaged shards, of all or of these names: their samples are then missing."""
        self._shards.set_damaged_aside(names)

    def refresh(self) -> None:
        """Reads the manifest again, which another process may have written since."""
        self.manifest = read_manifest(self.path)

    def __repr__(self) -> str:
        what = description(self.manifest)
        return f"<value table {self.path}: {what}; values() for V*, to_pandas() for the rows>"

    def setting(self, name: str) -> Any:
        """What the samples were made with, such as `temperature`."""
        return self.manifest["fingerprint"][name]

    @property
    def max_prompt_tokens(self) -> int:
        """The limit on prompts that the samples were made with; longer ones were set aside."""
        return self._finished("max_prompt_tokens")

    @property
    def num_samples(self) -> int:
        """N, samples of each problem, as the table was last finished with; the fewest of any."""
        return self._finished("samples")

    def counts(
        self, problems: Sequence[Sampled], num_samples: ArrayLike | None = None
    ) -> NDArray[np.int64]:
        """How many samples of each problem V* is from: its first ones.

        Args:
            problems: In the order wanted.
            num_samples: [P] or one number; None for what the table was last finished with, of which
                a problem that was not there then may have none.
        """
        if num_samples is not None:
            return np.broadcast_to(np.asarray(num_samples, np.int64), len(problems))
        if self.manifest.get("max_samples", self.num_samples) == self.num_samples:
            return np.full(len(problems), self.num_samples)
        return read_counts(self.path, ids_of(problems))

    def require_fit(self, fingerprint: Mapping[str, Any]) -> None:
        """Checks that these samples are what `fingerprint` would give.

        Entries that only one side has are not compared: a table may hold more tasks than a run
        uses, and the other way round.

        Raises:
            UserError: They are not; each difference is named.
        """
        require_fit(self.manifest["fingerprint"], fingerprint, self.path)

    def set_facts(self, **facts: Any) -> None:
        """Replaces entries of the manifest beside the fingerprint."""
        self.manifest |= facts
        write_sealed_json(self.path / MANIFEST, self.manifest)

    def append(self, samples: Sequence[Sample] | pa.Table, engine: str | None = None) -> None:
        """Writes finished samples, or their rows, as one more shard; `engine` sampled them."""
        rows = samples if isinstance(samples, pa.Table) else sample_rows(samples)
        self._shards.write(rows, self._fingerprint, engine)

    def stale_shards(self) -> list[Path]:
        """The shards that were judged by other verifiers than this table's, or by unknown ones."""
        wanted = self.manifest["fingerprint"]
        held = {shard: self._shards.fingerprint_of(shard) for shard in self._shards}
        return [shard for shard, known in held.items() if differ_in_verifiers(known, wanted)]

    def replace(self, shard: Path, rows: pa.Table) -> None:
        """Writes a shard's samples with other verdicts in its place."""
        written = self._shards.write(rows, self._fingerprint, engine_of(shard))
        if written != shard:  # Version 0.1.0 named it.
            shard.unlink()

    def samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All samples so far, shard by shard in the order of their names.

        Raises:
            UserError: A shard is damaged or of another table.
        """
        none = SCHEMA.empty_table().select(columns or SCHEMA.names)
        return pa.concat_tables([none, *self._read(columns)])

    def coded_samples(self, columns: Sequence[str]) -> pa.Table:
        """As `samples`, with codes in the place of texts, which take much less room."""
        return pa.concat_tables(
            [coded(rows) for rows in self._read(columns)] or [SCHEMA.empty_table().select(columns)]
        )

    def _read(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """The samples of each shard, once it is known to be whole and of this table."""
        if not is_remote(self.path):
            yield from (self._read_one(shard, columns) for shard in self._shards)
            return
        with ThreadPoolExecutor(_READERS) as readers:
            yield from readers.map(lambda shard: self._read_one(shard, columns), self._shards)

    def _read_one(self, shard: Path, columns: Sequence[str] | None) -> pa.Table:
        try:
            held = self._shards.fingerprint_of(shard)
            rows = read_shard(shard, columns)
        except DamagedFileError as error:
            raise DamagedFileError(f"{error}; {_AGAIN}: it makes its samples anew") from error
        misfit = "does not belong to this value table"
        require_fit(held or {}, self.manifest["fingerprint"], shard, misfit)
        return rows

    def missing_samples(
        self, problems: Sequence[Problem], num_samples: ArrayLike
    ) -> list[list[int]]:
        """For each problem, which of its first samples, so many as in `counts`, are not there yet.

        Raises:
            UserError: A problem differs from the one of the same id that was sampled.
        """
        counts_P = self.counts(problems, num_samples)
        (rewards_PN,) = self.matrices(problems, counts_P, ["reward"])
        is_missing_PN = np.isnan(rewards_PN)
        is_missing_PN &= np.arange(rewards_PN.shape[1]) < counts_P[:, None]
        missing: list[list[int]] = [[] for _ in range(len(problems))]
        for place in np.flatnonzero(is_missing_PN.any(axis=1)):
            missing[place] = np.flatnonzero(is_missing_PN[place]).tolist()
        return missing

    def sampled(self, problems: Sequence[Problem]) -> Sequence[Problem]:
        """Those of the problems that this table has samples of."""
        place_R = places(self.coded_samples(["problem_id"])["problem_id"], ids_of(problems))
        has_any_P = np.bincount(place_R[place_R >= 0], minlength=len(problems)) > 0
        return taken(problems, np.flatnonzero(has_any_P))

    def rewards(
        self, problems: Sequence[Sampled], num_samples: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Rewards of the first samples of each problem.

        Args:
            problems: In the order wanted.
            num_samples: As in `counts`.

        Returns:
            [P, N], NaN beyond a problem's number of samples.

        Raises:
            UserError: Samples are missing, or a problem has changed since.
        """
        counts_P = self.counts(problems, num_samples)
        (rewards_PN,) = self.matrices(problems, counts_P, ["reward"])
        fewest, most = self.manifest.get("samples", 0), self.manifest.get("max_samples", 0)
        each_has = fewest if num_samples is not None and fewest < most else None
        require_all(rewards_PN, counts_P, problems, self.path, each_has)
        return rewards_PN

    def values(
        self,
        problems: Sequence[Sampled] | None = None,
        estimator: Estimator | None = None,
        num_samples: ArrayLike | None = None,
    ) -> ProblemValues:
        """V* of each problem: what training, exports, reports and pictures use.

        Args:
            problems: In the order wanted; None for all that the table was last finished with.
            estimator: How V* is estimated; None for what the table was last finished with.
            num_samples: As in `counts`.

        Raises:
            UserError: As in `rewards`.
        """
        if problems is None or estimator is None:
            self._finished("samples")
            ids, written_by = written_values(self.path)
            rows = self.coded_samples(["problem_id", "problem_digest"])
            problems = known_problems(rows, ids) if problems is None else problems
            estimator = estimator or estimator_named(written_by)
        found = problem_values(self.rewards(problems, num_samples), estimator)
        return found._replace(problem_ids=tuple(ids_of(problems).to_pylist()))

    def to_pandas(self) -> "pandas.DataFrame":
        """V* of each problem as a data frame; see `values`."""
        return self.values().to_pandas()

    def write_values(
        self,
        problems: Sequence[Problem],
        found: ProblemValues,
        lengths: PromptLengths | None = None,
        **facts: Any,
    ) -> None:
        """Writes values.parquet and marks the table as finished.

        Args:
            problems: The table has samples of each.
            found: Their `values`.
            lengths: Of their prompts, where they are known.
            facts: Further entries of the manifest.
        """
        write_values(self.path, problems, found, lengths)
        most = int(found.num_samples_P.max())
        self.set_facts(samples=int(found.num_samples_P.min()), max_samples=most, **facts)

    def matrices(
        self, problems: Sequence[Sampled], counts_P: NDArray[np.int64], columns: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        """Columns of the samples so far as matrices; see `values.rewards.sample_matrices`.

        Raises:
            UserError: A problem differs from the one of the same id that was sampled.
        """
        rows = self.coded_samples(["problem_id", "problem_digest", "sample", *columns])
        most = int(counts_P.max(initial=0))
        if (rows["sample"].to_numpy() >= most).any():
            rows = rows.filter(pc.field("sample") < most)
        if changed := find_changed(rows, problems):
            raise UserError(
                f"{self.path}: problem {changed.id} was sampled with another text or answer"
            )
        return sample_matrices(rows, ids_of(problems), counts_P, columns)

    def _finished(self, name: str) -> Any:
        if not {"samples", name} <= self.manifest.keys():
            raise UserError(f"{self.path}: unfinished; {_AGAIN}")
        return self.manifest[name]
