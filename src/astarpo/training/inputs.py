"""What training starts from: problems, the value table, and prompts with their V*."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astarpo.algorithms.base import Algorithm
from astarpo.algorithms.choice import make_algorithm
from astarpo.algorithms.running_value import RunningValue
from astarpo.config import EstimateConfig, TrainConfig
from astarpo.engines.base import Sampling
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.models.folder import fingerprint
from astarpo.models.prompts import Prompts, open_prompts
from astarpo.models.vocabulary import PromptFormat, Vocabulary, load_vocabulary
from astarpo.tasks.overlap import refuse_overlap
from astarpo.tasks.problem_set import read_problems
from astarpo.training.stage1 import Stage1Rollouts, open_stage1
from astarpo.types import Problem, Prompt, UserError
from astarpo.values.choice import estimator_of, tell_other_estimator
from astarpo.values.derived import read_lengths
from astarpo.values.known import ids_of
from astarpo.values.table import ValueTable

logger = logging.getLogger("astarpo")

OnStep = Callable[[dict[str, Any]], object]


class Given(NamedTuple):
    """What a caller in Python gives beside a config.

    Attributes:
        problems: What `config.problems` will hold, which is then written.
        eval_problems: Likewise.
        on_step: Called with each step's metrics, once they are on disk.
    """

    problems: Sequence[Problem] | None = None
    eval_problems: Sequence[Problem] | None = None
    on_step: OnStep | None = None


class TextSettings(NamedTuple):
    """How problems become prompts, and how responses are sampled: the same in every stage."""

    prompt_format: PromptFormat
    max_prompt_tokens: int
    max_new_tokens: int
    temperature: float

    @classmethod
    def of(cls, config: EstimateConfig | TrainConfig) -> "TextSettings":
        """Those of a config; of training, None for each that the value table is to say."""
        return cls(*(getattr(config, name) for name in cls._fields))

    @property
    def sampling(self) -> Sampling:
        """The distribution that responses are drawn from."""
        return Sampling(self.max_new_tokens, self.temperature)


_WITHOUT_TABLE = TextSettings("raw", 256, 1024, 1.0)


@dataclass(frozen=True)
class Inputs:
    """Everything that a run is given, except for its models.

    Attributes:
        vocabulary: The model's.
        problems: As read.
        table: What stage 1 found, where the run uses it.
        text: Settings of prompts and responses.
        algorithm: The loss.
        prompts: What is trained on, each with its V* where there is a table.
        held_out: Prompts of the held-out problems; empty where there are none.
        num_steps: The steps of the whole run.
        stage1: The table's samples as first rollouts, where the config asks for them.
    """

    vocabulary: Vocabulary
    problems: Sequence[Problem]
    table: ValueTable | None
    text: TextSettings
    algorithm: Algorithm
    prompts: Prompts
    held_out: Sequence[Prompt]
    num_steps: int
    stage1: Stage1Rollouts | None

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt, held-out ones included."""
        held_out = (len(prompt.token_ids) for prompt in self.held_out)
        return max([self.prompts.longest, *held_out])


def open_inputs(
    config: TrainConfig,
    problems: Sequence[Problem] | None = None,
    eval_problems: Sequence[Problem] | None = None,
) -> Inputs:
    """Reads the problems and, where the run uses one, the value table; loads no weights.

    Args:
        config: Its settings.
        problems: Those of a file that is not written yet.
        eval_problems: Likewise, held-out ones.

    Raises:
        UserError: One of them is missing or cannot be read, or they do not fit.
    """
    if problems is None:
        problems = read_problems(config.problems, limit=config.limit)
    problems = problems[: config.limit]
    table = _open_table(config, verifier_fingerprint(problems, config.trust_reward))
    text = text_settings(config, table)
    algorithm = make_algorithm(config, text.max_new_tokens)
    if table is None:
        _refuse_without_table(config, algorithm)
    vocabulary = load_vocabulary(config.model)
    known_P = None
    if table is not None:
        rendered_by = {n: table.setting(n) for n in ("tokenizer", "prompt_format")}
        known_P = read_lengths(table.path, ids_of(problems), rendered_by)
    prompts = _prompts(vocabulary, problems, text, known_P)
    stage1 = None
    if table is not None:
        if algorithm.needs_values and algorithm.running is None:
            tell_other_estimator(config, table.path)
        whole, prompts = prompts, valued_prompts(prompts, table, config, algorithm.running)
        if config.first_rollouts == "stage1":
            stage1 = open_stage1(config, table, whole, prompts)
    held_out = []
    if config.eval_problems:
        held_out = read_problems(config.eval_problems) if eval_problems is None else eval_problems
        verifier_fingerprint(held_out, config.trust_reward)
        refuse_overlap(problems, held_out, (str(config.problems), str(config.eval_problems)))
        held_out = list(_prompts(vocabulary, held_out, text))
    num_steps = config.steps or math.ceil(config.epochs * len(prompts) / config.prompts_per_step)
    return Inputs(
        vocabulary, problems, table, text, algorithm, prompts, held_out, num_steps, stage1
    )


def _open_table(config: TrainConfig, verifiers: dict[str, str]) -> ValueTable | None:
    """The value table, if the config names one: it has to be of this model and these verifiers."""
    if not config.values:
        return None
    table = ValueTable(config.values)
    table.require_fit(fingerprint(config.model) | verifiers)
    if imported := table.manifest.get("imported"):
        logger.warning(
            f"{config.values}: samples imported from {imported['source']}; nothing but your "
            f"word says that {table.manifest['model']} wrote them"
        )
    return table


def _refuse_without_table(config: TrainConfig, algorithm: Algorithm) -> None:
    """Refuses what only a value table can give."""
    if config.values_samples is not None:
        raise UserError("values_samples counts samples of a value table: give --values too")
    if algorithm.needs_values:
        other = ", or --baseline-from rollout" if config.algorithm == "astar_po" else ""
        raise UserError(
            f"{config.algorithm} needs V* of each problem: give --values (astarpo estimate){other}"
        )
    if config.filter != "none":
        raise UserError(
            f"filter {config.filter} goes by stage-1 samples: give --values (astarpo estimate)"
        )


def _prompts(
    vocabulary: Vocabulary,
    problems: Sequence[Problem],
    text: TextSettings,
    known_P: NDArray[np.int64] | None = None,
) -> Prompts:
    limit, room = text.max_prompt_tokens, text.max_new_tokens
    return open_prompts(problems, vocabulary, text.prompt_format, limit, room, known_P)


def refuse_other_text(config: TrainConfig, table: TextSettings, where: str) -> None:
    """Refuses settings of prompts and responses that differ from the value table's."""
    for name, held in table._asdict().items():
        given = getattr(config, name)
        if given not in (None, held):
            raise UserError(
                f"{name} is {given} here and {held} in {where}: leave it out, or make a value "
                "table with it"
            )


def text_of_stages(stages: Mapping[str, Any]) -> TextSettings:
    """How a recipe puts problems and samples answers: as stage 1 does, where it has one."""
    return TextSettings.of(stages.get("estimate") or stages["train"])


def text_settings(config: TrainConfig, table: ValueTable | None) -> TextSettings:
    """The value table's settings, which the config may not contradict, or else the config's own."""
    if table is None:
        given = TextSettings.of(config)._asdict()
        return _WITHOUT_TABLE._replace(**{k: v for k, v in given.items() if v is not None})
    text = TextSettings(
        table.setting("prompt_format"),
        table.max_prompt_tokens,
        table.setting("max_new_tokens"),
        table.setting("temperature"),
    )
    refuse_other_text(config, text, str(table.path))
    return text


def valued_prompts(
    prompts: Prompts,
    table: ValueTable,
    config: TrainConfig,
    running: RunningValue | None = None,
) -> Prompts:
    """Gives each prompt its V*, then drops those that the filter drops.

    Where values run along with the policy, a prompt gets the one that they start from instead.

    Raises:
        UserError: The table lacks samples, the filter leaves nothing, or rewards are not from 0 to
            1 where values run.
    """
    found = table.values(prompts.problems, estimator_of(dict(config)), config.values_samples)
    value_P = found.v_star_P
    if running is not None:
        value_P = running.first_values(found.mean_P, found.num_samples_P)
        lowest, highest = found.lowest_P.min(initial=0), found.highest_P.max(initial=0)
        if refusal := running.refusal(lowest, highest):
            raise UserError(f"{table.path}: {refusal}")
    kept_P = np.ones(len(prompts), dtype=bool)
    if config.filter != "none":
        kept_P &= ~found.all_wrong_P
    if config.filter == "all_wrong_and_right":
        kept_P &= ~found.all_right_P
    if not kept_P.any():
        raise UserError(f"filter {config.filter} drops every one of {len(prompts)} problems")
    if num_dropped := int((~kept_P).sum()):
        logger.info(f"filter {config.filter}: {num_dropped} of {len(prompts)} problems dropped")
    return replace(prompts, values_P=value_P).take(kept_P)
