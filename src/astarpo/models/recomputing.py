"""Gradient checkpointing: the activations of layers are not kept, but computed again."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

from astarpo.models.attention import attending


class Recomputing:
    """Has the backward pass through some models compute activations again, while it is in use."""

    def __init__(self, models: Sequence[Any]) -> None:
        self._layers = []
        for model in models:
            model.gradient_checkpointing_enable(
                {
                    "use_reentrant": False,
                    "preserve_rng_state": False,  # a layer draws no random numbers
                    "context_fn": partial(_same_again, model),
                }
            )
            layers = [x for x in model.modules() if isinstance(x, GradientCheckpointingLayer)]
            self._layers += layers

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Puts the layers into training mode for the length of a block.

        Layers keep their activations unless they themselves, not what is in them, are in training
        mode, in which they could not use a cache to sample. Their parts stay in evaluation mode,
        without dropout.
        """
        for layer in self._layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in self._layers:
                layer.training = False


def _same_again(model: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a layer's first computation, and of its second.

    The second comes in the backward pass, when another attention function may be in place; it
    takes the one of the first.
    """
    return nullcontext(), attending(model, model.config._attn_implementation)
