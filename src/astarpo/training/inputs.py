"""What training starts from: problems, the value table, prompts and their V*."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from astarpo.algorithms import ALGORITHMS
from astarpo.algorithms.base import Algorithm
from astarpo.config import TrainConfig
from astarpo.engines.base import Sampling
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.models.policy import PromptFormat, fingerprint
from astarpo.models.prompts import open_prompts
from astarpo.tasks.overlap import refuse_overlap
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Problem, Prompt, UserError
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")


class TextSettings(NamedTuple):
    """How problems become prompts and prompts responses; the same in every stage."""

    prompt_format: PromptFormat
    max_prompt_tokens: int
    max_new_tokens: int
    temperature: float

    @property
    def sampling(self) -> Sampling:
        """The distribution that responses are drawn from."""
        return Sampling(self.max_new_tokens, self.temperature)


_WITHOUT_TABLE = TextSettings("raw", 256, 1024, 1.0)


@dataclass(frozen=True)
class Inputs:
    """Everything a run is given but its models.

    Attributes:
        problems: As read.
        table: Stage 1, where the run has it.
        text: Settings of prompts and responses.
        algorithm: The loss.
        prompts: What is trained on.
        values: V* of each, where there is a table.
        held_out: Prompts of the held-out problems; empty where there are none.
        num_steps: Of the whole run.
    """

    problems: list[Problem]
    table: ValueTable | None
    text: TextSettings
    algorithm: Algorithm
    prompts: list[Prompt]
    values: list[float] | None
    held_out: list[Prompt]
    num_steps: int


def open_inputs(config: TrainConfig) -> Inputs:
    """Opens problems and value table, once it is known to be this model's and verifier's.

    No weights are loaded.

    Raises:
        UserError: One of them is missing or cannot be read, or they do not fit.
    """
    problems = read_problems(config.problems, limit=config.limit)
    verifiers = verifier_fingerprint(problems, config.trust_reward)
    table = None
    if config.values:
        table = ValueTable(config.values)
        table.require_fit(fingerprint(config.model) | verifiers)
        if imported := table.manifest.get("imported"):
            logger.warning(
                f"{config.values}: samples imported from {imported['source']}; nothing but your "
                f"word says that {table.manifest['model']} wrote them"
            )
    elif config.values_samples is not None:
        raise UserError("values_samples counts samples of a value table: give --values too")
    text = text_settings(config, table)
    algorithm = ALGORITHMS[config.algorithm](config, text.max_new_tokens)
    if table is None and algorithm.needs_values:
        raise UserError(
            f"{config.algorithm} needs V* of each problem: give --values (astarpo estimate)"
        )
    if table is None and config.filter != "none":
        raise UserError(
            f"filter {config.filter} goes by stage-1 samples: give --values (astarpo estimate)"
        )
    prompts, values = attach_values(_prompts(config.model, problems, text), table, config)
    held_out = []
    if config.eval_problems:
        held_out = read_problems(config.eval_problems)
        verifier_fingerprint(held_out, config.trust_reward)
        refuse_overlap(problems, held_out, (str(config.problems), str(config.eval_problems)))
        held_out = _prompts(config.model, held_out, text)
    num_steps = count_steps(config, len(prompts))
    return Inputs(problems, table, text, algorithm, prompts, values, held_out, num_steps)


def _prompts(model: str, problems: Sequence[Problem], text: TextSettings) -> list[Prompt]:
    return open_prompts(
        problems, model, text.prompt_format, text.max_prompt_tokens, text.max_new_tokens
    )


def refuse_other_text(config: TrainConfig, table: TextSettings, where: str) -> None:
    """Refuses settings of prompts and responses that differ from the value table's.

    Raises:
        UserError: One differs.
    """
    for name, held in table._asdict().items():
        given = getattr(config, name)
        if given not in (None, held):
            raise UserError(
                f"{name} is {given} here and {held} in {where}: leave it out, or make a value "
                "table with it"
            )


def text_settings(config: TrainConfig, table: ValueTable | None) -> TextSettings:
    """The value table's settings, or the config's own where there is none.

    Raises:
        UserError: The config asks for other settings than the table was made with.
    """
    if table is None:
        given = {name: getattr(config, name) for name in TextSettings._fields}
        return _WITHOUT_TABLE._replace(**{k: v for k, v in given.items() if v is not None})
    text = TextSettings(
        table.setting("prompt_format"),
        table.max_prompt_tokens,
        table.setting("max_new_tokens"),
        table.setting("temperature"),
    )
    refuse_other_text(config, text, str(table.path))
    return text


def count_steps(config: TrainConfig, num_prompts: int) -> int:
    """Steps of a run: as asked for, or as many as its epochs take."""
    return config.steps or math.ceil(config.epochs * num_prompts / config.prompts_per_step)


def attach_values(
    prompts: Sequence[Prompt], table: ValueTable | None, config: TrainConfig
) -> tuple[list[Prompt], list[float] | None]:
    """V* of each prompt, without the problems that `config.filter` drops.

    Args:
        prompts: All that could be trained on.
        table: Stage 1; without it there are no values, and nothing is dropped.
        config: Gives beta1, values_samples and filter.

    Raises:
        UserError: The table lacks samples, or the filter leaves nothing.
    """
    if table is None:
        return list(prompts), None
    found = table.values([p.problem for p in prompts], config.beta1, config.values_samples)
    kept_P = np.ones(len(prompts), dtype=bool)
    if config.filter != "none":
        kept_P &= found.highest_P > 0
    if config.filter == "all_wrong_and_right":
        kept_P &= found.lowest_P < 1
    if not kept_P.any():
        raise UserError(f"filter {config.filter} drops every one of {len(prompts)} problems")
    if num_dropped := int((~kept_P).sum()):
        logger.info(f"filter {config.filter}: {num_dropped} of {len(prompts)} problems dropped")
    values = found.v_star_P[kept_P].tolist()
    return [p for p, kept in zip(prompts, kept_P, strict=True) if kept], values
