"""A value table that several calls of `estimate --part I/N` fill at the same time.

They share nothing but the table's folder. What is exclusive takes moments, under a lock of its own:
making the table and writing down its plan; and, at the end of each, looking whether it was the last
and completing the table. In between, each part samples the shards of the plan that are its own, and
writes them under names that no other part writes.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astarpo.config import EstimateConfig
from astarpo.models.prompts import Prompts
from astarpo.runtime.files import disk_errors
from astarpo.runtime.locks import brief_lock, read_holder
from astarpo.runtime.remote import is_remote
from astarpo.types import UserError
from astarpo.values.manifest import PARTS, started_manifest
from astarpo.values.plan import PLANS, Plans, Shard
from astarpo.values.rounds import Round
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")


def require_plan(config: EstimateConfig, prompts: Prompts) -> None:
    """Checks that a part may begin: the table has no other plan under way, and nobody has it alone.

    Raises:
        UserError: It has, or another process writes the whole of it.
    """
    held = started_manifest(config.out)
    plans = Plans(prompts, held.get(PLANS, []))
    counts_P = np.full(len(prompts), config.samples)
    plans.require_fit(counts_P, config.shard_problems, config.out)
    holder = read_holder(config.out)
    if holder is not None and holder.is_alive:
        raise UserError(
            f"{config.out}: {holder.name} is writing here without --part, so it does all parts; "
            "wait for it, or end it and start the parts"
        )


def start(
    config: EstimateConfig,
    fingerprint: dict[str, Any],
    facts: dict[str, Any],
    prompts: Prompts,
) -> tuple[ValueTable, Plans]:
    """Makes the table, or opens it to go on; of a part, with its plan, and its own shards whole.

    Raises:
        UserError: The table there does not fit.
    """
    if not is_remote(config.out):
        with disk_errors(config.out):
            config.out.mkdir(parents=True, exist_ok=True)
    if config.part is None:
        with brief_lock(config.out):
            table = ValueTable.start(
                config.out, fingerprint, facts, any_verifier=config.rejudge, heal=False
            )
        table.heal()
        return table, Plans(prompts, table.manifest.get(PLANS, []))
    whole = Round(1, np.full(len(prompts), config.samples))
    with brief_lock(config.out):
        # Once more, since another part may have begun since it was looked at.
        require_plan(config, prompts)
        facts |= {PARTS: config.share[1]}
        table = ValueTable.start(config.out, fingerprint, facts, heal=False)
        plans = Plans(prompts, table.manifest.get(PLANS, []))
        if plans.add(whole.counts_P, config.shard_problems):
            table.set_facts(**{PLANS: plans.entries})
    table.heal({shard.name for shard in of_part(plans.shards, config)})
    return table, plans


def write_plans(table: ValueTable, plans: Plans) -> None:
    """Writes the plans, to which that of a round was added, into the manifest."""
    with brief_lock(table.path):
        table.refresh()
        table.set_facts(**{PLANS: plans.entries})


def of_part(shards: Sequence[Shard], config: EstimateConfig) -> list[Shard]:
    """Those that the part is to do: every so manyth of the plan, so that lengths are mixed."""
    number, parts = config.share
    return [shard for shard in shards if shard.number % parts == number]


def is_whole(
    config: EstimateConfig, table: ValueTable, plans: Plans, counts_P: NDArray[np.int64]
) -> bool:
    """Whether all samples are there, so that the table can be completed; else says what is not.

    The table's manifest is read again, and its plans are marked that are done.
    """
    table.refresh()
    missing = plans.missing(table, counts_P)
    if config.part is not None and not missing:
        table.heal()  # Of the others' shards nothing but their names has been looked at so far.
        missing = plans.missing(table, counts_P)
    if not missing:
        table.manifest.pop(PARTS, None)
        plans.mark_complete(table)
        return True
    parts = config.share[1]
    lacking = sorted({shard.number % parts + 1 for shard in missing})
    logger.info(
        f"part {config.part} is done; {len(missing)} of {len(plans.shards)} shards are missing, of "
        f"{'part' if len(lacking) == 1 else 'parts'} {_ranges(lacking)}: the last part to finish "
        "completes the table. If they are not running, run them again, or this command without "
        "--part, which samples whatever is missing"
    )
    return False


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as text, such as "1-3,5", which Slurm's `--array` takes too."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
