"""What the benchmarks of whole stages share: models of a given shape, prompts, stage 1, one step.

Weights are random, so answers mean nothing: every response runs to its limit, and rewards are made
up. Sampling, log-probs, gradients and the optimiser are the real ones; verification is left out.
"""

import copy
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from astarpo.algorithms import ALGORITHMS
from astarpo.config import TrainConfig
from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models.policy import Policy, make_policy
from astarpo.models.vocabulary import make_vocabulary
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.stages.warm_start import byte_tokenizer
from astarpo.training.learner import Learner
from astarpo.types import Answer, Completion, Problem, Prompt, Verdict

Seconds = dict[str, float]


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2 model whose head is tied to its embedding."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int

    @property
    def head_size(self) -> int:
        """Size of an attention head."""
        return self.hidden // self.heads

    @property
    def body(self) -> int:
        """Weights of all linear layers but the head."""
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Weights of the head."""
        return self.hidden * self.vocabulary


QWEN_HALF_B = Shape("Qwen2.5-0.5B", 896, 24, 14, 2, 4864, 151_936)
QWEN_1_5B = Shape("Qwen2.5-1.5B", 1536, 28, 12, 2, 8960, 151_936)


def endless(policy: Policy) -> Policy:
    """The policy with a stop id that is in no vocabulary: every response has its full length."""
    beyond = policy.model.config.vocab_size
    vocabulary = replace(policy.vocabulary, stop_ids=frozenset({beyond}), pad_id=0)
    return replace(policy, vocabulary=vocabulary)


def random_policy(shape: Shape, device: torch.device) -> Policy:
    """An endless policy to be trained, of random weights, as `load_policy` would give it."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.random.fork_rng(), device:
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=shape.vocabulary,
                hidden_size=shape.hidden,
                intermediate_size=shape.intermediate,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads,
                max_position_embeddings=32_768,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    vocabulary = make_vocabulary(byte_tokenizer(), model.config, model.generation_config)
    return endless(make_policy(model, vocabulary, trainable=True))


def frozen_copy(policy: Policy) -> Policy:
    """The reference of a policy, as `load_policy` would give it."""
    model = make_policy(copy.deepcopy(policy.model), policy.vocabulary).model
    return replace(policy, model=model)


def random_critic(policy: Policy) -> Any:
    """A critic of the policy's shape, of random weights."""
    from transformers import Qwen2ForTokenClassification

    config = copy.deepcopy(policy.model.config)
    config.num_labels = 1
    with policy.device:
        return Qwen2ForTokenClassification(config).eval()


def make_prompts(count: int, width: int, vocabulary: int) -> list[Prompt]:
    """Prompts of random tokens, all of one width."""
    rng = random.Random(0)
    return [
        Prompt(
            Problem(str(i), "gsm8k", (), "0"),
            tuple(rng.randrange(vocabulary) for _ in range(width)),
            value=0.5,
        )
        for i in range(count)
    ]


def make_completions(count: int, length: int, vocabulary: int) -> list[Completion]:
    """Responses of random tokens, for an update without sampling."""
    rng = random.Random(1)
    logprobs = (-math.log(vocabulary),) * length
    return [
        Completion(tuple(rng.randrange(vocabulary) for _ in range(length)), logprobs, "length")
        for _ in range(count)
    ]


def judge(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Answer]:
    """Answers with rewards of 0 and 1 in turns, so that every group has both."""
    return [
        Answer(prompt, completion, "", Verdict(float(i % 2), None, "ok"))
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]


def sample(
    policy: Policy, prompts: Sequence[Prompt], samples: int, length: int, max_sequences: int
) -> list[Completion]:
    """So many responses to each prompt, by our engine."""
    requests = [
        Request(prompt.token_ids, i * samples + k)
        for i, prompt in enumerate(prompts)
        for k in range(samples)
    ]
    return HFEngine(policy, max_sequences).generate(requests, Sampling(length))


def make_learner(
    policy: Policy, reference: Policy, algorithm: str, critic: Any = None, **settings: Any
) -> Learner:
    """A learner whose learning rate is too small to change anything that is measured."""
    given = {"model": "", "problems": "", "out": "", "algorithm": algorithm, "lr": 1e-9}
    config = TrainConfig.model_validate(given | settings)
    return Learner(
        policy, reference, ALGORITHMS[algorithm](config, 1024), config, 1.0, critic=critic
    )


def update(learner: Learner, answers: Sequence[Answer]) -> Seconds:
    """Seconds of one update by phase: reference and update."""
    stopwatch = Stopwatch()
    learner.update(answers, 1.0, stopwatch)
    return stopwatch.seconds


def step(learner: Learner, prompts: Sequence[Prompt], length: int, max_sequences: int) -> Seconds:
    """Seconds of one step of training by phase: generate, reference and update."""
    stopwatch = Stopwatch()
    group = learner.algorithm.samples_per_prompt
    with stopwatch.phase("generate"):
        completions = sample(learner.policy, prompts, group, length, max_sequences)
    answers = judge([prompt for prompt in prompts for _ in range(group)], completions)
    return stopwatch.seconds | update(learner, answers)


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call, until a GPU has done what it was asked to."""
    stopwatch = Stopwatch()
    with stopwatch.phase("all"):
        work()
    return stopwatch.seconds["all"]


@dataclass(frozen=True)
class Load:
    """How much of everything stage 1 and a step have to do."""

    size: str
    prompts: int
    samples: int
    length: int


class Stages:
    """Both stages of A*-PO over policies of several sizes, to be timed at any load.

    Attributes:
        policies: By the name that `Load.size` gives.
        parameters: How many each has.
    """

    def __init__(self, policies: Mapping[str, Policy], prompt_width: int, **settings: Any) -> None:
        """Makes reference and learner of each policy.

        Args:
            policies: To be trained, by name.
            prompt_width: Tokens of a prompt.
            settings: Of the learner; `max_sequences` is that of stage 1 too.
        """
        self.policies = policies
        self.parameters = {
            name: sum(p.numel() for p in policy.model.parameters())
            for name, policy in policies.items()
        }
        self._references = {name: frozen_copy(policy) for name, policy in policies.items()}
        self._learners = {
            name: make_learner(policy, self._references[name], "astar_po", **settings)
            for name, policy in policies.items()
        }
        self._prompt_width = prompt_width
        self._max_sequences = settings["max_sequences"]

    def seconds(self, load: Load) -> tuple[float, float]:
        """Of stage 1 and of one step."""
        policy = self.policies[load.size]
        prompts = make_prompts(load.prompts, self._prompt_width, policy.model.config.vocab_size)
        stage1 = timed(
            lambda: sample(
                self._references[load.size], prompts, load.samples, load.length, self._max_sequences
            ),
        )
        phases = step(self._learners[load.size], prompts, load.length, self._max_sequences)
        return stage1, sum(phases.values())


@dataclass(frozen=True)
class Series:
    """Loads that differ in one thing alone.

    Attributes:
        name: What they differ in.
        loads: By the size of it.
    """

    name: str
    loads: dict[float, Load]


def measure_series(
    stages: Stages, series: Sequence[Series], repeats: int
) -> dict[str, dict[str, list[float]]]:
    """Times every load, all of them in each repeat, so that what slows the machine slows all.

    Returns:
        By series and by `stage 1` or `a step`, the median seconds of its loads.
    """
    loads = list(dict.fromkeys(load for each in series for load in each.loads.values()))
    for load in {load.size: load for load in loads}.values():  # the first of all is slow
        stages.seconds(replace(load, prompts=2, samples=1))
    times: dict[Load, list[tuple[float, float]]] = {load: [] for load in loads}
    for _ in range(repeats):
        for load in loads:
            times[load].append(stages.seconds(load))
    medians = {
        load: [statistics.median(each) for each in zip(*pairs, strict=True)]
        for load, pairs in times.items()
    }
    return {
        each.name: {
            name: [medians[load][stage] for load in each.loads.values()]
            for stage, name in enumerate(("stage 1", "a step"))
        }
        for each in series
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The power of the size that the seconds grow with: the slope of their logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def growth(power: float) -> str:
    """What an exponent means, in words."""
    if abs(power) < 0.15:
        return "does not matter"
    if power < 0.85:
        return "less than linear"
    return "near linear" if power <= 1.15 else "more than linear"
