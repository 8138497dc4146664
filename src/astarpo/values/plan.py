"""What stage 1 has to sample: what its samples depend on, and the shards that they are cut into.

Shards belong to a plan, which stands in the table's manifest and follows from what was asked for
alone, not from what is there: prompts of similar length go together, and each shard has a name and
a number of its own. So several processes on several machines can each do a part of one plan without
a word between them, and a shard that is lost comes back under its own name. On CPU the bytes are
those of a single process that was never interrupted.

More samples, more problems or a further round add a plan: the samples beyond those of the plans
before it.

    "plans": [{"problems": 24, "of": "9b1c...", "samples": 8, "shard_problems": 4, "digest": ...}]
"""

import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from astarpo.config import EstimateConfig, ImportValuesConfig
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.models.folder import fingerprint
from astarpo.models.prompts import Prompts
from astarpo.types import Problem, Prompt, UserError
from astarpo.values.known import digests_of, ids_of
from astarpo.values.shards import shard_name, shard_paths
from astarpo.values.table import ValueTable

PLANS = "plans"
"""Entry of the manifest that holds a table's plans."""

_TOLD = {
    "problems": "number of problems",
    "samples": "samples",
    "max_samples": "samples of some problems",
    "shard_problems": "shard_problems",
    "of": "problems or their prompts",
}
"""What plans can differ in, as messages call it."""

_AT_A_TIME = 65_536


def sampling_fingerprint(
    config: EstimateConfig | ImportValuesConfig, problems: Sequence[Problem], seed: int | None
) -> dict[str, Any]:
    """Everything that decides which samples a table holds and how they were judged.

    The seed is None where it is not known, as for samples that others have published.
    """
    return (
        fingerprint(config.model)
        | verifier_fingerprint(problems, config.trust_reward)
        | {
            "prompt_format": config.prompt_format,
            "temperature": config.temperature,
            "top_p": 1.0,
            "max_new_tokens": config.max_new_tokens,
            "seed": seed,
        }
    )


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Samples that are taken and written together.

    Attributes:
        number: Its place among the shards of all plans, from 0; a part takes every so manyth.
        name: Of its file, as long as all of its samples are in it.
        prompts: Those of the plan.
        places: Which of them it has samples of.
        numbers: Of each of those, the numbers of the samples.
    """

    number: int
    name: str
    prompts: Sequence[Prompt]
    places: NDArray[np.int64]
    numbers: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return sum(map(len, self.numbers))

    def samples(self) -> list[tuple[Prompt, int]]:
        """Each sample: its prompt, and its number among those of the prompt."""
        runs = zip(self._own(), self.numbers, strict=True)
        return [(prompt, number) for prompt, numbers in runs for number in numbers]

    def alone(self) -> "Shard":
        """The same with its own prompts alone, for another process."""
        prompts = self._own()
        return replace(self, prompts=prompts, places=np.arange(len(prompts)))

    def _own(self) -> list[Prompt]:
        if isinstance(self.prompts, Prompts):
            return list(self.prompts.take(self.places))  # renders them together
        return [self.prompts[place] for place in self.places]


class _Plan(NamedTuple):
    """A plan that is known here.

    Attributes:
        first_P: [P] the number of the first sample of each prompt that it adds.
        end_P: [P] how many samples each prompt has by it.
        shards: What it adds.
    """

    first_P: NDArray[np.int64]
    end_P: NDArray[np.int64]
    shards: list[Shard]


class Plans:
    """The plans of a table, as far as they are of the prompts at hand.

    Attributes:
        entries: What the manifest has of each, in the order in which they were made.
    """

    def __init__(self, prompts: Prompts, entries: Sequence[Mapping[str, Any]]) -> None:
        """Recalls the shards of each plan that gave as many samples to each of the first prompts.

        Args:
            prompts: Those that samples are wanted of, in the order of the problem file.
            entries: Of the manifest.
        """
        self.prompts = prompts
        self.entries: list[dict[str, Any]] = [dict(entry) for entry in entries]
        self._ids = ids_of(prompts.problems)
        self._order_P = np.argsort(prompts.lengths_P, kind="stable")
        self._known: dict[str, _Plan] = {}
        self._digest_of = cache(self._digest_of_first)
        for entry in entries:
            each_P = np.arange(len(prompts)) < entry["problems"]
            counts_P = np.where(each_P, entry["samples"], 0)
            if entry["digest"] == self.entry(counts_P, entry["shard_problems"])["digest"]:
                self._recall(entry, counts_P)

    def entry(self, counts_P: NDArray[np.int64], shard_problems: int) -> dict[str, Any]:
        """What the manifest says of a plan.

        Args:
            counts_P: [P] samples that each prompt is to have, those of earlier plans included.
            shard_problems: Problems in a shard.
        """
        num_problems = int(np.flatnonzero(counts_P)[-1]) + 1
        wanted_P = counts_P[:num_problems]
        fewest, most = int(wanted_P.min()), int(wanted_P.max())
        entry = {"problems": num_problems, "of": self._digest_of(num_problems), "samples": fewest}
        if most > fewest:
            entry["max_samples"] = most
        entry["shard_problems"] = shard_problems
        content = json.dumps([entry, wanted_P.tolist() if most > fewest else []])
        return entry | {"digest": _digest(content)}

    @property
    def shards(self) -> list[Shard]:
        """Those of all plans that are known here, in the order of their numbers."""
        return [shard for plan in self._known.values() for shard in plan.shards]

    def add(self, counts_P: NDArray[np.int64], shard_problems: int) -> bool:
        """Adds a plan, arguments as in `entry`; False if the manifest has it already."""
        wanted = self.entry(counts_P, shard_problems)
        found = self._find(wanted)
        if found is None:
            self.entries.append(wanted)
        self._recall(wanted, counts_P)
        return found is None

    def require_fit(self, counts_P: NDArray[np.int64], shard_problems: int, path: Path) -> None:
        """Checks that a plan, arguments as in `entry`, may be done in parts.

        Raises:
            UserError: The table has another one that is not done; each difference is named.
        """
        wanted = self.entry(counts_P, shard_problems)
        under_way = [entry for entry in self.entries if not entry.get("complete")]
        if self._find(wanted) is not None or not under_way:
            return
        held = under_way[-1]
        differences = [
            f"{told}: {held.get(name)} in the table and {wanted.get(name)} here"
            for name, told in _TOLD.items()
            if held.get(name) != wanted.get(name)
        ]
        nothing = "" if shard_paths(path) else f", or, as it has no samples yet, delete {path}"
        raise UserError(
            f"{path}: parts of another plan fill this table ({'; '.join(differences)}): all parts "
            f"need the same plan; finish that one first, or give another --out{nothing}"
        )

    def missing(self, table: ValueTable, num_samples: ArrayLike) -> list[Shard]:
        """The shards that are to be sampled yet.

        A shard whose samples are there in part, or are not all wanted, is cut to the rest.

        Args:
            table: Theirs, to look up what is there.
            num_samples: [P] or one number: samples that each prompt is to have.

        Raises:
            UserError: A problem differs from the one of the same id that was sampled.
        """
        counts_P = np.broadcast_to(np.asarray(num_samples, np.int64), len(self.prompts))
        names = {shard.name for shard in shard_paths(table.path)}
        return self._cut(counts_P, self._held(table, names, counts_P), names)

    def wanted(self, counts_P: NDArray[np.int64]) -> list[Shard]:
        """All shards for so many samples of each prompt, [P], whatever is there."""
        is_held_PN = np.zeros((len(self.prompts), counts_P.max(initial=0)), bool)
        return self._cut(counts_P, is_held_PN)

    def mark_complete(self, table: ValueTable) -> None:
        """Marks the plans, of those that are known here, that have no sample missing."""
        for entry in self.entries:
            plan = self._known.get(entry["digest"])
            if plan is not None and not self.missing(table, plan.end_P):
                entry["complete"] = True

    def _cut(
        self,
        counts_P: NDArray[np.int64],
        is_held_PN: NDArray[np.bool_],
        without: Container[str] = (),
    ) -> list[Shard]:
        """Shards without the samples that are held or not wanted; without those left empty."""
        number_N = np.arange(is_held_PN.shape[1])
        lacks_PN = (number_N < counts_P[:, None]) & ~is_held_PN
        found = []
        for plan in self._known.values():
            for shard in plan.shards:
                if shard.name in without:
                    continue
                places = shard.places
                is_its_KN = number_N >= plan.first_P[places, None]
                is_its_KN &= number_N < plan.end_P[places, None]
                lacks_KN = lacks_PN[places] & is_its_KN
                if (num_lacking := np.count_nonzero(lacks_KN)) == len(shard):
                    found.append(shard)
                elif num_lacking:
                    some_K = lacks_KN.any(axis=1)
                    numbers = [np.flatnonzero(row_N).tolist() for row_N in lacks_KN[some_K]]
                    found.append(replace(shard, places=places[some_K], numbers=numbers))
        return found

    def _held(
        self, table: ValueTable, names: set[str], counts_P: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """[P, N] which samples are there, beyond the shards that have their planned names.

        Nothing is read where all that is there has such a name, in a table all of whose plans are
        known: plans have no samples in common, and are of problems that are as they were.
        """
        all_known = self.entries and len(self._known) == len(self.entries)
        if not names or (all_known and names <= {shard.name for shard in self.shards}):
            return np.zeros((len(self.prompts), counts_P.max(initial=0)), bool)
        (rewards_PN,) = table.matrices(self.prompts.problems, counts_P, ["reward"])
        return ~np.isnan(rewards_PN)

    def _find(self, wanted: Mapping[str, Any]) -> int | None:
        digests = [entry["digest"] for entry in self.entries]
        return digests.index(wanted["digest"]) if wanted["digest"] in digests else None

    def _recall(self, entry: Mapping[str, Any], end_P: NDArray[np.int64]) -> None:
        """Cuts what a plan adds to those before it into shards."""
        digest = entry["digest"]
        if digest in self._known:
            return
        first_P = np.zeros(len(self.prompts), np.int64)
        for before in self.entries[: self._find(entry)]:
            if (plan := self._known.get(before["digest"])) is not None:
                first_P = np.maximum(first_P, plan.end_P)
        number, size = len(self.shards), entry["shard_problems"]
        pending = self._order_P[first_P[self._order_P] < end_P[self._order_P]]
        numbers_of = cache(range)  # nearly all prompts have the same
        shards = []
        for i in range(0, len(pending), size):
            places = pending[i : i + size]
            bounds = zip(first_P[places].tolist(), end_P[places].tolist(), strict=True)
            numbers = [numbers_of(first, end) for first, end in bounds]
            name = _name_of(self._ids.take(pa.array(places)).to_pylist(), numbers)
            shards.append(Shard(number + len(shards), name, self.prompts, places, numbers))
        self._known[digest] = _Plan(first_P, end_P, shards)

    def _digest_of_first(self, num_problems: int) -> str:
        """Digest of the first problems and of what decides the order of their samples."""
        digest, digests = hashlib.blake2b(digest_size=12), digests_of(self.prompts.problems)
        for i in range(0, num_problems, _AT_A_TIME):
            some = slice(i, min(i + _AT_A_TIME, num_problems))
            lengths = self.prompts.lengths_P[some].tolist()
            rows = [self._ids[some].to_pylist(), digests[some].to_pylist(), lengths]
            digest.update(json.dumps(rows).encode())
        return digest.hexdigest()


def _name_of(ids: Sequence[str], numbers: Sequence[Sequence[int]]) -> str:
    repeated = [name for name, each in zip(ids, numbers, strict=True) for _ in each]
    return shard_name(repeated, [number for each in numbers for number in each])


def _digest(content: str) -> str:
    return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
