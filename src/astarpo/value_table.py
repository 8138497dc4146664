"""The value table: what stage 1 found, on disk.

    manifest.json      what was sampled, from which model, judged by which verifier
    samples-*.parquet  every sample with its reward; append-only, one shard at a time
    values.parquet     V^* of each problem, derived from the rewards at one beta and N

V^* follows from raw rewards, so beta, N and filters change without sampling again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from astarpo.answer_schema import answer_schema
from astarpo.files import TEMPORARY_PREFIX, write_atomic, write_json
from astarpo.types import Problem, UserError
from astarpo.values import value_estimates

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a shard."""

    problem_id: str
    problem_digest: str
    sample: int
    token_ids: tuple[int, ...]
    text: str
    answer: str | None
    reward: float
    status: str
    num_tokens: int
    finish_reason: str


_SCHEMA = answer_schema({field.name for field in fields(Sample)})


class ValueTable:
    """A value table that exists on disk.

    Attributes:
        path: Its folder.
        manifest: `fingerprint` (what must fit for the samples to be of use), and facts beside it.
    """

    def __init__(self, path: Path | str) -> None:
        """Opens a table.

        Raises:
            UserError: There is none, or it is of another format.
        """
        self.path = Path(path)
        try:
            self.manifest = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{path}: no value table here (no manifest.json); make one with astarpo estimate"
            ) from error
        except ValueError as error:
            raise UserError(f"{path}/manifest.json: not readable as JSON ({error})") from error
        if self.manifest.get("format") != FORMAT:
            raise UserError(f"{path}: a value table of format {FORMAT} is needed")

    @classmethod
    def start(cls, path: Path, fingerprint: dict[str, Any], facts: dict[str, Any]) -> "ValueTable":
        """Makes a table, or opens the one that is there to go on with it.

        Args:
            path: Its folder.
            fingerprint: What the samples depend on.
            facts: Further entries of the manifest, replaced by the latest call's.

        Raises:
            UserError: The table there has another fingerprint; the differences are named.
        """
        if (path / "manifest.json").is_file():
            table = cls(path)
            table.require_fit(fingerprint)
            fingerprint = table.manifest["fingerprint"] | fingerprint
            facts = table.manifest | facts
        elif path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
            raise UserError(f"{path}: exists and is not a value table; give another --out")
        path.mkdir(parents=True, exist_ok=True)
        for leftover in path.glob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink()
        write_json(
            path / "manifest.json",
            {**facts, "format": FORMAT, "fingerprint": fingerprint},
        )
        return cls(path)

    def setting(self, name: str) -> Any:
        """What the samples were made with, such as `temperature`."""
        return self.manifest["fingerprint"][name]

    @property
    def max_prompt_tokens(self) -> int:
        """Limit over which prompts were set aside when the samples were made."""
        return self.manifest["max_prompt_tokens"]

    def require_fit(self, fingerprint: Mapping[str, Any]) -> None:
        """Checks that these samples are what `fingerprint` would give.

        Entries that stand on one side only are not compared: a table may hold more tasks than a
        run uses, and the other way round.

        Raises:
            UserError: They are not; each difference is named.
        """
        held = self.manifest["fingerprint"]
        if differences := [
            f"{name} is {held[name]!r} in the table and {fingerprint[name]!r} here"
            for name in sorted(held.keys() & fingerprint.keys())
            if held[name] != fingerprint[name]
        ]:
            raise UserError(f"{self.path}: the value table does not fit: {'; '.join(differences)}")

    def set_facts(self, **facts: Any) -> None:
        """Replaces entries of the manifest beside the fingerprint."""
        self.manifest |= facts
        write_json(self.path / "manifest.json", self.manifest)

    def append(self, samples: Sequence[Sample]) -> None:
        """Writes finished samples as one more shard."""
        shard = pa.Table.from_pylist([asdict(s) for s in samples], schema=_SCHEMA)
        number = len(self._shards())
        write_atomic(
            self.path / f"samples-{number:05d}.parquet", lambda file: pq.write_table(shard, file)
        )

    def samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All samples so far, in the order they were written.

        Raises:
            UserError: A shard cannot be read.
        """
        tables = []
        for shard in self._shards():
            try:
                tables.append(pq.read_table(shard, columns=columns))
            except (OSError, pa.ArrowInvalid) as error:
                raise UserError(
                    f"{shard}: not readable ({error}); delete it and estimate"
                ) from error
        if tables:
            return pa.concat_tables(tables)
        return _SCHEMA.empty_table().select(columns or _SCHEMA.names)

    def missing_samples(self, problems: Sequence[Problem], num_samples: int) -> list[list[int]]:
        """For each problem, which of its first `num_samples` samples are not there yet.

        Raises:
            UserError: A problem differs from the one of the same id that was sampled.
        """
        rows = self.samples(["problem_id", "problem_digest", "sample"]).to_pydict()
        digests = dict(zip(rows["problem_id"], rows["problem_digest"], strict=True))
        done = set(zip(rows["problem_id"], rows["sample"], strict=True))
        for problem in problems:
            if digests.get(problem.id, problem.digest) != problem.digest:
                raise UserError(
                    f"{self.path}: problem {problem.id} was sampled with another text or answer"
                )
        return [[i for i in range(num_samples) if (p.id, i) not in done] for p in problems]

    def rewards(
        self, problems: Sequence[Problem], num_samples: int | None = None
    ) -> NDArray[np.float64]:
        """Rewards of the first samples of each problem.

        Args:
            problems: Which, in the order wanted.
            num_samples: N; None for all that the table was made with.

        Returns:
            [P, N].

        Raises:
            UserError: Samples are missing, or a problem has changed since.
        """
        if "samples" not in self.manifest:
            raise UserError(f"{self.path}: unfinished; run the same astarpo estimate again")
        num_samples = num_samples or int(self.manifest["samples"])
        missing = self.missing_samples(problems, num_samples)
        if lacking := [p.id for p, m in zip(problems, missing, strict=True) if m]:
            raise UserError(
                f"{self.path}: {len(lacking)} of {len(problems)} problems lack samples out of "
                f"{num_samples} (such as {lacking[0]}); finish it with astarpo estimate"
            )
        place = {problem.id: i for i, problem in enumerate(problems)}
        rewards_PN = np.full((len(problems), num_samples), np.nan)
        rows = self.samples(["problem_id", "sample", "reward"]).to_pydict()
        for name, i, reward in zip(*rows.values(), strict=True):
            if name in place and i < num_samples:
                rewards_PN[place[name], i] = reward
        return rewards_PN

    def write_values(self, problems: Sequence[Problem], num_samples: int, beta: float) -> None:
        """Derives values.parquet from the samples."""
        self.set_facts(samples=num_samples)
        rewards_PN = self.rewards(problems, num_samples)
        v_star_P, standard_error_P = value_estimates(rewards_PN, beta)
        values = pa.table(
            {
                "problem_id": [p.id for p in problems],
                "n": pa.array([num_samples] * len(problems), pa.int32()),
                "mean_reward": rewards_PN.mean(axis=1),
                "v_star": v_star_P,
                "v_star_se": standard_error_P,
            }
        )
        write_atomic(self.path / "values.parquet", lambda file: pq.write_table(values, file))

    def _shards(self) -> list[Path]:
        return sorted(self.path.glob("samples-*.parquet"))
