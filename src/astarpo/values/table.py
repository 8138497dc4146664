"""The value table: what stage 1 found, on disk.

    manifest.json      what was sampled, from which model, judged by which verifier
    samples-*.parquet  every sample with its reward, in shards that are written once
    values.parquet     V* of each problem, derived from the rewards by one estimator and one N

V* follows from raw rewards, so estimator, N and filters change without sampling again. Damage to
any file is noticed; the same `astarpo estimate` restores a shard or manifest that is damaged or
lost.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astarpo.runtime.files import DamagedFileError, disk_errors, write_sealed_json
from astarpo.runtime.parquet import write_parquet
from astarpo.types import Problem, UserError
from astarpo.values.choice import estimator_named
from astarpo.values.estimators import Estimator, ProblemValues, problem_values
from astarpo.values.known import Sampled, known_problems, written_values
from astarpo.values.manifest import (
    FORMAT,
    MANIFEST,
    VERIFIER,
    read_manifest,
    require_fit,
    started_manifest,
)
from astarpo.values.rewards import find_changed, reward_matrix
from astarpo.values.shards import SCHEMA, Sample, check_shard, read_shard, shard_paths, write_shard

if TYPE_CHECKING:
    import pandas

_AGAIN = "run the same astarpo estimate again"

logger = logging.getLogger("astarpo")


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

    def __init__(self, path: Path | str) -> None:
        """Opens a table.

        Raises:
            UserError: There is none, it is damaged, or it is of another format.
        """
        self.path = Path(path)
        if not (self.path / MANIFEST).is_file():
            raise UserError(
                f"{path}: no value table here (no {MANIFEST}); make one with astarpo estimate"
            )
        try:
            self.manifest = read_manifest(self.path)
        except DamagedFileError as error:
            raise DamagedFileError(f"{error}; {_AGAIN}: it makes this file anew") from error
        self._fingerprint = self.manifest["fingerprint"]
        self._checked: dict[Path, dict[str, Any] | None] = {}  # shards and their fingerprints

    @classmethod
    def start(
        cls,
        path: Path,
        fingerprint: dict[str, Any],
        facts: dict[str, Any],
        *,
        any_verifier: bool = False,
    ) -> "ValueTable":
        """Makes a table, or opens the one that is there to go on with it.

        Damaged shards are renamed, with a warning: their samples are then missing.

        Args:
            path: Its folder.
            fingerprint: What the samples depend on.
            facts: Further entries of the manifest, replaced by the latest call's.
            any_verifier: Open it also where other verifiers judged its samples, which marks it as
                unfinished; see `stale_shards`.

        Raises:
            UserError: The table there has another fingerprint; the differences are named.
        """
        held = started_manifest(path)
        require_fit(held["fingerprint"], fingerprint, path, any_verifier=any_verifier)
        union = held["fingerprint"] | fingerprint
        if any_verifier:
            held.pop("samples", None)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        manifest = {**held, **facts, "format": FORMAT, "fingerprint": union}
        write_sealed_json(path / MANIFEST, manifest)
        table = cls(path)
        table._fingerprint = fingerprint
        table._set_damaged_aside()
        return table

    def __repr__(self) -> str:
        held = self.manifest
        what = f"{held.get('num_problems')} problems, {held.get('samples')} samples of each"
        what = f"{what} by {held.get('model')}" if "samples" in held else "unfinished"
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
        """N, samples of each problem, as the table was last finished with."""
        return self._finished("samples")

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

    def append(self, samples: Sequence[Sample]) -> None:
        """Writes finished samples as one more shard."""
        self._write(pa.Table.from_pylist([asdict(sample) for sample in samples], schema=SCHEMA))

    def stale_shards(self) -> list[Path]:
        """The shards that were judged by other verifiers than this table's, or by unknown ones."""
        return [
            shard
            for shard in shard_paths(self.path)
            if (held := self._fingerprint_of(shard)) is None
            or any(
                held[name] != self.manifest["fingerprint"].get(name)
                for name in held
                if name.startswith(VERIFIER)
            )
        ]

    def replace(self, shard: Path, rows: pa.Table) -> None:
        """Writes a shard's samples with other verdicts in its place."""
        if self._write(rows) != shard:  # Version 0.1.0 named it.
            shard.unlink()

    def samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All samples so far, shard by shard in the order of their names.

        Raises:
            UserError: A shard is damaged or of another table.
        """
        tables = []
        for shard in shard_paths(self.path):
            try:
                held = self._fingerprint_of(shard)
                tables.append(read_shard(shard, columns))
            except DamagedFileError as error:
                raise DamagedFileError(f"{error}; {_AGAIN}: it makes its samples anew") from error
            misfit = "does not belong to this value table"
            require_fit(held or {}, self.manifest["fingerprint"], shard, misfit)
        return pa.concat_tables([SCHEMA.empty_table().select(columns or SCHEMA.names), *tables])

    def missing_samples(self, problems: Sequence[Problem], num_samples: int) -> list[list[int]]:
        """For each problem, which of its first `num_samples` samples are not there yet.

        Raises:
            UserError: A problem differs from the one of the same id that was sampled.
        """
        rewards_PN = self._rewards(problems, num_samples)
        return [np.flatnonzero(row).tolist() for row in np.isnan(rewards_PN)]

    def sampled(self, problems: Sequence[Problem]) -> list[Problem]:
        """Those of the problems that this table has samples of."""
        known = set(self.samples(["problem_id"])["problem_id"].to_pylist())
        return [problem for problem in problems if problem.id in known]

    def rewards(
        self, problems: Sequence[Sampled], num_samples: int | None = None
    ) -> NDArray[np.float64]:
        """Rewards of the first samples of each problem.

        Args:
            problems: In the order wanted.
            num_samples: N; None for all that the table was made with.

        Returns:
            [P, N].

        Raises:
            UserError: Samples are missing, or a problem has changed since.
        """
        num_samples = num_samples or self.num_samples
        rewards_PN = self._rewards(problems, num_samples)
        if lacking := np.flatnonzero(np.isnan(rewards_PN).any(axis=1)).tolist():
            raise UserError(
                f"{self.path}: {len(lacking)} of {len(problems)} problems lack samples out of "
                f"{num_samples} (such as {problems[lacking[0]].id}); finish it with astarpo "
                "estimate"
            )
        return rewards_PN

    def values(
        self,
        problems: Sequence[Sampled] | None = None,
        estimator: Estimator | None = None,
        num_samples: int | None = None,
    ) -> ProblemValues:
        """V* of each problem: what training, exports, reports and pictures use.

        Args:
            problems: In the order wanted; None for all that the table was last finished with.
            estimator: How V* is estimated; None for what the table was last finished with.
            num_samples: As in `rewards`.

        Raises:
            UserError: As in `rewards`.
        """
        if problems is None or estimator is None:
            self._finished("samples")
            ids, written_by = written_values(self.path)
            rows = self.samples(["problem_id", "problem_digest"])
            problems = known_problems(rows, ids) if problems is None else problems
            estimator = estimator or estimator_named(written_by)
        found = problem_values(self.rewards(problems, num_samples), estimator)
        return found._replace(problem_ids=tuple(problem.id for problem in problems))

    def to_pandas(self) -> "pandas.DataFrame":
        """V* of each problem as a data frame; see `values`."""
        return self.values().to_pandas()

    def write_values(self, problems: Sequence[Problem], found: ProblemValues, **facts: Any) -> None:
        """Writes values.parquet and marks the table as finished.

        Args:
            problems: The table has N samples of each.
            found: Their `values`.
            facts: Further entries of the manifest.
        """
        columns = {
            "problem_id": [p.id for p in problems],
            "n": pa.array(found.num_samples_P, pa.int32()),
            "mean_reward": found.mean_P,
            "v_star": found.v_star_P,
            "v_star_se": found.standard_error_P,
            "estimator": [str(found.estimator)] * len(problems),
        }
        write_parquet(self.path / "values.parquet", pa.table(columns))
        self.set_facts(samples=int(found.num_samples_P.min()), **facts)

    def _rewards(self, problems: Sequence[Sampled], num_samples: int) -> NDArray[np.float64]:
        """[P, N] rewards, NaN where there is no sample yet."""
        rows = self.samples(["problem_id", "problem_digest", "sample", "reward"])
        rows = rows.filter(pc.field("sample") < num_samples)
        if changed := find_changed(rows, problems):
            raise UserError(
                f"{self.path}: problem {changed.id} was sampled with another text or answer"
            )
        return reward_matrix(rows, [p.id for p in problems], num_samples)

    def _write(self, rows: pa.Table) -> Path:
        shard = write_shard(self.path, rows, self._fingerprint)
        self._checked[shard] = self._fingerprint
        return shard

    def _finished(self, name: str) -> Any:
        if not {"samples", name} <= self.manifest.keys():
            raise UserError(f"{self.path}: unfinished; {_AGAIN}")
        return self.manifest[name]

    def _fingerprint_of(self, shard: Path) -> dict[str, Any] | None:
        """What a shard says of its samples; the first time, it is checked to be whole."""
        if shard not in self._checked:
            self._checked[shard] = check_shard(shard)
        return self._checked[shard]

    def _set_damaged_aside(self) -> None:
        for shard in shard_paths(self.path):
            try:
                self._fingerprint_of(shard)
            except DamagedFileError as error:
                with disk_errors(shard):
                    shard.replace(shard.with_name(f"damaged-{shard.name}"))
                logger.warning(f"{error}; set aside as damaged-{shard.name}, its samples come anew")
