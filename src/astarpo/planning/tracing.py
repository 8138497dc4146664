"""What one update of the learner holds in memory, found by running it on fake tensors.

The learner's own code runs: packing, reference, losses, gradient checkpointing, the optimiser. So
what is planned follows the code, where formulas would go stale. Layers of a model are alike, so two
models of few layers tell the peak of a deep one: each stretch of an update grows by the same bytes
with each layer.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from astarpo.algorithms.choice import make_algorithm
from astarpo.config import TrainConfig
from astarpo.models.head import assume_plain
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.models.ways import Way, assume_way, latest_way
from astarpo.planning.counting import Kinds, LiveBytes, in_backward
from astarpo.planning.fakes import open_fake_critic, open_fakes
from astarpo.planning.shape import ModelShape
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.learner import Learner
from astarpo.training.running_values import RunningValues
from astarpo.types import Answer, Completion, Problem, Prompt, Verdict

_DEPTHS = (2, 3)
"""Layers of the two models that are traced; the first and the last have windows of their own."""

_MOST_TRACED = 4
"""Models of no more layers are traced as they are."""


@dataclass(frozen=True)
class Load:
    """The longest sequences that an update may meet.

    Attributes:
        prompt_tokens: Of the longest prompt.
        answer_tokens: Of the longest response.
        compute: What autocast computes in; None for float32 throughout.
    """

    prompt_tokens: int
    answer_tokens: int
    compute: torch.dtype | None


_WORKED_OUT: dict[str, Any] = {
    "reference_offload": False,
    "optimizer": "adamw",
    "engine_memory": None,
    "max_sequences": 1,
}
"""Settings that are not traced, but whose memory is worked out afterwards."""

_ways: dict[tuple[str, Load], Way] = {}
"""How sequences go through a model, as its fewer layers showed."""

_traced: dict[tuple[Any, ...], dict[str, Kinds]] = {}


def trace_update(shape: ModelShape, train: TrainConfig, load: Load) -> dict[str, Kinds]:
    """As `trace_anew`; what was traced in this process is not traced again."""
    algorithm = make_algorithm(train, load.answer_tokens)
    answers, more = _answers(train, algorithm, load)
    met = shape.config.to_json_string(), load, train.algorithm, len(answers), more
    made = train.gradient_checkpointing, train.fp32_head, train.lora_rank
    key = met + made + (train.temperature, train.engine)
    if key not in _traced:
        _traced[key] = trace_anew(shape, train, load)
    return _traced[key]


def trace_anew(shape: ModelShape, train: TrainConfig, load: Load) -> dict[str, Kinds]:
    """Bytes by kind at the peak of each stretch of an update, once the optimiser has its moments.

    Args:
        shape: The model.
        train: Its algorithm, batches and adapter count. Both AdamWs are traced as torch's.
        load: The sequences.
    """
    if shape.num_layers <= _MOST_TRACED:
        return _trace(shape, shape.num_layers, train, load)
    few, more = (_trace(shape, depth, train, load) for depth in _DEPTHS)
    added = shape.num_layers - _DEPTHS[0]
    grown = {}
    for window, at_few in few.items():
        at_more = more[window]
        grown[window] = Counter(
            {
                kind: at_few[kind] + (at_more[kind] - at_few[kind]) * added
                for kind in at_few.keys() | at_more.keys()
            }
        )
    return grown


def _trace(shape: ModelShape, depth: int, train: TrainConfig, load: Load) -> dict[str, Kinds]:
    """What is alive at the peak of each window of an update of a model of so many layers."""
    mode, config = FakeTensorMode(allow_non_fake_inputs=True), shape.with_layers(depth)
    once = train.model_copy(update={"minibatches": 1, **_WORKED_OUT})
    live = LiveBytes(shape.vocabulary_size)
    with _quiet():
        policy, reference = open_fakes(config, once, load.compute, mode)
        algorithm = make_algorithm(once, load.answer_tokens)
        critic = open_fake_critic(config, mode) if algorithm.needs_critic else None
        answers, more = _answers(train, algorithm, load)
        rule, first = algorithm.running, answers[0].prompt
        learner = Learner(
            policy, reference, algorithm, once, once.temperature or 1.0, critic,
            running=RunningValues(rule, [first.problem.id], [first.value or 0]) if rule else None,
        )  # fmt: skip
        trained = [policy.model, *([critic] if critic is not None else [])]
        live.register(reference.model.parameters(), "reference")
        for model in trained:
            live.register((p for p in model.parameters() if p.requires_grad), "weights")
            live.gradients_of(model)
        with live:
            _assume([policy, reference], critic, answers[0], (shape.config.to_json_string(), load))
            _first_step(learner, live)
            for model in trained:
                _watch_layers(model, live)
            learner.update(answers, 1.0, _Windows(live, learner if more else None))
    return live.peaks


def _assume(policies: list[Policy], critic: Any, answer: Answer, met: tuple[str, Load]) -> None:
    """Has each kind of model tried out once, by which ways sequences may go through it."""
    first, longest = policies[0], sum(map(len, answer.sequence))
    if met not in _ways:
        with torch.no_grad():
            token_logprobs(first.model, first.collate([answer.sequence]), 1.0)
        _ways[met] = latest_way(first.model) or "alone"
    for policy in policies:
        assume_plain(policy.model)
        assume_way(policy.model, _ways[met], longest)
    if critic is not None:
        assume_way(critic, _ways[met], longest)


def _first_step(learner: Learner, live: LiveBytes) -> None:
    """Has the optimiser make its moments, as the updates before did."""
    _fill_gradients(learner, live)
    live.making("moments")
    learner.optimizer.step()
    live.making(None)
    learner.optimizer.zero_grad(set_to_none=True)
    learner.optimizer.register_step_pre_hook(lambda *_: live.enter("optimizer"))


def _fill_gradients(learner: Learner, live: LiveBytes) -> None:
    live.making("gradients")
    for parameter in learner.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    live.making(None)


def _watch_layers(model: Any, live: LiveBytes) -> None:
    """Opens a window at each layer, forward and backward, and at what comes after the last."""
    layers = _decoder_layers(model)
    last = len(layers) - 1
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(partial(_at_layer, live, number, last))
        layer.register_forward_hook(partial(_after_layer, live, number, last))


def _at_layer(live: LiveBytes, number: int, last: int, *_: Any) -> None:
    live.enter(f"{'recompute' if in_backward() else 'forward'} {_place(number, last)}")


def _after_layer(live: LiveBytes, number: int, last: int, *args: Any) -> None:
    hidden = args[-1][0] if isinstance(args[-1], tuple) else args[-1]
    if hidden.requires_grad:
        hidden.register_hook(lambda _: live.enter(f"backward {_place(number, last)}"))
    if number == last and not in_backward():
        live.enter("head")


def _place(number: int, last: int) -> str:
    """A layer's place as models of any depth have it."""
    return "first" if number == 0 else "last" if number == last else "between"


def _decoder_layers(model: Any) -> nn.ModuleList:
    """The longest list of modules in a model: its decoder's layers."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


class _Windows(Stopwatch):
    """Opens a window for each phase of an update."""

    def __init__(self, live: LiveBytes, learner: Learner | None) -> None:
        """Takes the learner where micro-batches before the traced one have left gradients."""
        super().__init__()
        self._live, self._learner = live, learner

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """As `Stopwatch.phase`."""
        self._live.enter(name)
        if name == "update" and self._learner is not None:
            _fill_gradients(self._learner, self._live)
            self._learner = None
        with super().phase(name):
            yield


def _answers(train: TrainConfig, algorithm: Any, load: Load) -> tuple[list[Answer], bool]:
    """The longest answers that fill a micro-batch, and whether an update has more of those."""
    group, length = algorithm.samples_per_prompt, load.prompt_tokens + load.answer_tokens
    rows = max(algorithm.coupled, train.micro_batch_tokens // length)
    count = max(1, train.prompts_per_step // train.minibatches) * group
    problem = Problem("plan", "gsm8k", ({"role": "user", "content": ""},), "0")
    prompt = Prompt(problem, (0,) * load.prompt_tokens, value=0.5)
    answer = (0,) * load.answer_tokens
    done = Completion(answer, (-1.0,) * load.answer_tokens, "length")
    one = Answer(prompt, done, "", Verdict(0.0, None, "no_answer"))
    return [one] * max(group, min(rows, count) // group * group), count > rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the remarks of the learner, which knows nothing of fakes, out of the log."""
    logger = logging.getLogger("astarpo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
