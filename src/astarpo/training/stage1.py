"""Rollouts of stage 1: the first updates learn from the value table's samples, not from new ones.

The table's samples were drawn from the reference, from which training starts: at step 1 they are
exactly what the policy would write. Each epoch takes another sample of every problem, its first in
the first epoch, so a step has one answer a prompt as ever. V* of an answer leaves that answer out.

Later the policy differs from the one that sampled. The answers are not weighted by pi / pi_ref: the
loss is a regression, whose targets hold for every answer, whoever wrote it. Where V* is exact and
beta_1 = beta_2 its minimum is pi*, whatever distribution with the same support the answers come
from; else a distribution apart from pi's weighs the misfit otherwise. And an answer that pi no
longer gives stops teaching it anything that it needs. So it ends for good once the policy has moved
too far: after the first rollout over whose answers |ln pi - ln pi_ref| has a mean above
`stage1_drift`, or where a sample is missing.

All of it follows from the table, the seed and the metrics, so a resumed run needs no state for it.

Shapes: _P prompts, _N samples of one problem.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from astarpo.config import TrainConfig
from astarpo.models.prompts import Prompts
from astarpo.training.schedule import step_places
from astarpo.types import Answer, Completion, UserError, Verdict
from astarpo.values.choice import estimator_of
from astarpo.values.estimators import Floats
from astarpo.values.known import ids_of, places
from astarpo.values.rewards import place_matrix
from astarpo.values.table import ValueTable

_COLUMNS = [
    "problem_id", "sample", "token_ids", "text", "answer", "reward", "status", "finish_reason",
]  # fmt: skip


class Stage1Rollouts:
    """The samples of a value table as the answers of training's first steps."""

    def __init__(
        self,
        samples: pa.Table,
        prompts: Prompts,
        values_PN: Floats,
        config: TrainConfig,
    ) -> None:
        """Takes the samples of some prompts.

        Args:
            samples: Columns `_COLUMNS`.
            prompts: What is trained on.
            values_PN: [P, N] V* of each prompt without that sample.
            config: Its seed, its `prompts_per_step` and its `stage1_drift` count.
        """
        ids = ids_of(prompts.problems)
        self._samples = samples
        self._prompts = prompts
        self._values_PN = values_PN
        self._row_PN = place_matrix(samples, ids, values_PN.shape[1])
        self._config = config

    def goes_on_after(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether, by the metrics of the steps so far, the policy is still near the reference."""
        return all(
            row["rollout"] == "stage1" and row["stage1_drift"] <= self._config.stage1_drift
            for row in rows
        )

    def answers(self, step: int) -> list[Answer] | None:
        """The answers that a step learns from; None where it needs new ones. Steps count from 1."""
        count, size = len(self._prompts), self._config.prompts_per_step
        chosen = step_places(count, self._config, step)
        numbers = [position // count for position in range((step - 1) * size, step * size)]
        pairs = list(zip(chosen, numbers, strict=True))
        used_up = numbers[-1] >= self._values_PN.shape[1]
        if used_up or any(self._row_PN[pair] < 0 for pair in pairs):
            return None
        return [self._answer(*pair) for pair in pairs]

    def _answer(self, place: int, number: int) -> Answer:
        row = self._samples.slice(int(self._row_PN[place, number]), 1).to_pylist()[0]
        return Answer(
            replace(self._prompts[place], value=float(self._values_PN[place, number])),
            Completion(tuple(row["token_ids"]), (), row["finish_reason"]),
            row["text"],
            Verdict(row["reward"], row["answer"], row["status"]),
        )


def open_stage1(
    config: TrainConfig, table: ValueTable, whole: Prompts, kept: Prompts
) -> Stage1Rollouts:
    """Prepares rollouts of stage 1.

    Args:
        config: The config.
        table: What stage 1 found.
        whole: All prompts, to which estimators are fitted.
        kept: Those that the filter keeps.

    Raises:
        UserError: The table has no token ids, or too few samples to leave one out.
    """
    if not table.manifest.get("imported", {}).get("token_ids", True):
        raise UserError(
            f"{table.path}: was imported without token ids, so first_rollouts stage1 cannot learn "
            "from its samples: leave it out, or make a table with astarpo estimate"
        )
    rewards_PN = table.rewards(whole.problems, config.values_samples)
    estimator = estimator_of(dict(config))
    try:
        numbers = range(rewards_PN.shape[1])
        values = [estimator.left_out(rewards_PN, number) for number in numbers]
    except ValueError as error:
        raise UserError(
            f"first_rollouts stage1: V* of an answer leaves that answer out, for which estimator "
            f"{config.estimator} needs 2 samples of each problem or more: give --estimator shrunk, "
            "or a table of more samples"
        ) from error
    kept_P = places(pa.chunked_array([ids_of(whole.problems)]), ids_of(kept.problems)) >= 0
    return Stage1Rollouts(table.samples(_COLUMNS), kept, np.stack(values, axis=1)[kept_P], config)


def is_from_stage1(answers: Sequence[Answer]) -> bool:
    """Whether answers are the reference's, from a value table: it does not hold log-probs."""
    return not answers[0].completion.logprobs


def rollout_metrics(answers: Sequence[Answer]) -> dict[str, Any]:
    """Where a rollout came from; stage 1 has counted the tokens of its own."""
    if is_from_stage1(answers):
        return {"rollout": "stage1", "tokens": 0}
    return {"rollout": "policy"}
