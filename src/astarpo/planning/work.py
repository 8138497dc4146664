"""What each stage of a recipe will do, in numbers: problems, samples, steps, tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astarpo.algorithms.choice import make_algorithm
from astarpo.config import EstimateConfig, EvaluateConfig, TrainConfig, WarmStartConfig


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts and answers.

    Attributes:
        prompt_mean: Of a prompt.
        prompt_longest: Of the longest prompt that is used.
        answer_mean: Expected of an answer.
        answer_limit: Where an answer is cut.
        prompts_from: How the first two are known, in words.
        answers_from: How the third is known, in words.
    """

    prompt_mean: float
    prompt_longest: int
    answer_mean: float
    answer_limit: int
    prompts_from: str
    answers_from: str

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with the longest answer."""
        return self.prompt_longest + self.answer_limit


@dataclass(frozen=True)
class Work:
    """What one stage does.

    Attributes:
        stage: Its name.
        problems: How many it goes over.
        samples: Answers that it samples; 0 where it samples none.
        steps: Steps of training; 0 where it trains nothing.
        prompt_tokens: Tokens of prompts that are read to sample, each distinct prompt once.
        answer_tokens: Tokens that are expected to be sampled.
        learnt_tokens: Tokens, prompts included, that the policy learns from.
    """

    stage: str
    problems: int
    samples: int = 0
    steps: int = 0
    prompt_tokens: float = 0.0
    answer_tokens: float = 0.0
    learnt_tokens: float = 0.0


def recipe_work(
    stages: Mapping[str, Any], num_train: int, num_test: int, lengths: Lengths
) -> list[Work]:
    """The work of every stage that has problems, in order.

    Args:
        stages: The config of each, by name.
        num_train: Problems to train on.
        num_test: Held-out problems.
        lengths: Of prompts and answers.
    """
    found = []
    for name, config in stages.items():
        if isinstance(config, EstimateConfig):
            found.append(estimate_work(name, config, num_train, lengths))
        elif isinstance(config, TrainConfig):
            found.append(train_work(name, config, num_train, num_test, lengths))
        elif isinstance(config, EvaluateConfig):
            found.append(evaluate_work(name, config, num_test, lengths))
        elif isinstance(config, WarmStartConfig):
            found.append(Work(name, num_train, steps=config.steps))
        else:
            found.append(Work(name, num_test if config.split == "test" else num_train))
    return [each for each in found if each.problems]


def estimate_work(stage: str, config: EstimateConfig, problems: int, lengths: Lengths) -> Work:
    """Stage 1; in rounds it ends at the budget, and a target error is not foreseen."""
    problems = min(problems, config.limit or problems)
    samples = config.budget_samples or problems * config.samples
    tokens = config.budget_tokens or samples * lengths.answer_mean
    if config.budget_tokens:
        samples = math.ceil(config.budget_tokens / lengths.answer_mean)
    return Work(
        stage,
        problems,
        samples,
        prompt_tokens=problems * lengths.prompt_mean,
        answer_tokens=tokens,
    )


def train_work(
    stage: str,
    config: TrainConfig,
    problems: int,
    num_test: int,
    lengths: Lengths,
) -> Work:
    """Stage 2, with the held-out problems that it answers meanwhile; a filter is not foreseen."""
    problems = min(problems, config.limit or problems)
    algorithm = make_algorithm(config, lengths.answer_limit)
    steps = config.steps or math.ceil(config.epochs * problems / config.prompts_per_step)
    learnt = steps * config.prompts_per_step * algorithm.samples_per_prompt
    looks = 0
    if config.eval_problems:
        looks = (math.ceil(steps / config.eval_every) + 1) * num_test * config.eval_samples
    prompts = steps * config.prompts_per_step
    return Work(
        stage,
        problems,
        learnt + looks,
        steps,
        prompt_tokens=(prompts + looks) * lengths.prompt_mean,
        answer_tokens=(learnt + looks) * lengths.answer_mean,
        learnt_tokens=learnt * (lengths.prompt_mean + lengths.answer_mean),
    )


def evaluate_work(stage: str, config: EvaluateConfig, problems: int, lengths: Lengths) -> Work:
    """Scores: a greedy answer and the samples of each problem."""
    problems = min(problems, config.limit or problems)
    samples = problems * (1 + config.samples)
    return Work(
        stage,
        problems,
        samples,
        prompt_tokens=problems * lengths.prompt_mean,
        answer_tokens=samples * lengths.answer_mean,
    )
