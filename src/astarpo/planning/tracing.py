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
from astarpo.planning.counting import Kinds, LiveBytes, in_backward
from astarpo.planning.fakes import open_fake_critic, open_fakes
from astarpo.planning.shape import ModelShape
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.learner import Learner
from astarpo.types import Answer, Completion, Problem, Prompt, Verdict

_DEPTHS = (3, 4)
"""Layers of the two models that are traced; see `_place` for the windows that both have."""

_MOST_TRACED = 5
"""Models of no more layers are traced as they are."""

_PASSES = 2
"""Micro-batches: from the second on the gradients of those before it are there as well."""


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


_UNREAD = {"reference_offload", "optimizer", "engine_memory", "max_sequences"}
"""Settings of training that are not traced, but worked out afterwards."""

_traced: dict[tuple[Any, ...], dict[str, Kinds]] = {}


def trace_update(shape: ModelShape, train: TrainConfig, load: Load) -> dict[str, Kinds]:
    """As `trace_anew`; what was traced in this process is not traced again."""
    settings = train.model_dump_json(exclude=_UNREAD)
    key = (shape.config.to_json_string(), settings, load)
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
        return _trace(shape.with_layers(shape.num_layers), train, load, shape.vocabulary_size)
    few, more = (
        _trace(shape.with_layers(depth), train, load, shape.vocabulary_size) for depth in _DEPTHS
    )
    added = shape.num_layers - _DEPTHS[0]
    per_layer = _DEPTHS[1] - _DEPTHS[0]
    grown = {}
    for window, at_few in few.items():
        at_more = more[window]
        grown[window] = Counter(
            {
                kind: at_few[kind] + (at_more[kind] - at_few[kind]) * added // per_layer
                for kind in at_few.keys() | at_more.keys()
            }
        )
    return grown


def _trace(config: Any, train: TrainConfig, load: Load, vocabulary_size: int) -> dict[str, Kinds]:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    settings = {"minibatches": 1, "reference_offload": False, "optimizer": "adamw"}
    train = train.model_copy(update=settings)
    live = LiveBytes(vocabulary_size)
    with _quiet():
        policy, reference = open_fakes(config, train, load.compute, mode)
        algorithm = make_algorithm(train, load.answer_tokens)
        critic = open_fake_critic(config, mode) if algorithm.needs_critic else None
        learner = Learner(policy, reference, algorithm, train, train.temperature or 1.0, critic)
        trained = [policy.model, *([critic] if critic is not None else [])]
        live.register(reference.model.parameters(), "reference")
        for model in trained:
            live.register((p for p in model.parameters() if p.requires_grad), "weights")
            live.gradients_of(model)
        with live:
            _first_step(learner, live)
            for model in trained:
                _watch_layers(model, live)
            learner.update(_answers(train, algorithm, load), 1.0, _Windows(live))
    return live.peaks


def _first_step(learner: Learner, live: LiveBytes) -> None:
    """Has the optimiser make its moments, as the updates before did."""
    for parameter in learner.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    live.making("moments")
    learner.optimizer.step()
    live.making(None)
    learner.optimizer.zero_grad(set_to_none=True)
    learner.optimizer.register_step_pre_hook(lambda *_: live.enter("optimizer"))


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
    """A layer's place as models of any depth have it: the first two, the last two, the others."""
    if number <= 1:
        return f"{number}"
    return f"-{last - number + 1}" if last - number <= 1 else "between"


def _decoder_layers(model: Any) -> nn.ModuleList:
    """The longest list of modules in a model: its decoder's layers."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


class _Windows(Stopwatch):
    """Opens a window for each phase of an update."""

    def __init__(self, live: LiveBytes) -> None:
        super().__init__()
        self._live = live

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """As `Stopwatch.phase`."""
        self._live.enter(name)
        with super().phase(name):
            yield


def _answers(train: TrainConfig, algorithm: Any, load: Load) -> list[Answer]:
    """As many of the longest answers as fill the micro-batches, no more than a step has."""
    group, length = algorithm.samples_per_prompt, load.prompt_tokens + load.answer_tokens
    rows = max(algorithm.coupled, train.micro_batch_tokens // length)
    in_minibatch = max(1, train.prompts_per_step // train.minibatches) * group
    count = min(_PASSES * rows, in_minibatch)
    count = max(group, count - count % group)
    problem = Problem("plan", "gsm8k", ({"role": "user", "content": ""},), "0")
    prompt = Prompt(problem, (0,) * load.prompt_tokens, value=0.5)
    answer = (0,) * load.answer_tokens
    done = Completion(answer, (-1.0,) * load.answer_tokens, "length")
    return [Answer(prompt, done, "", Verdict(0.0, None, "no_answer")) for _ in range(count)]


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
