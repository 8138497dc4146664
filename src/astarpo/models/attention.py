"""Attention of our own in transformers' models, by their attention interface.

A model asks its config which attention to use, and passes it whatever it knows of. A function of
ours is put in place for a while, and must refuse what it has not been made for.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# What models pass to attention besides, without a meaning in evaluation mode.
_HARMLESS = {"dropout", "position_ids", "cache_position", "use_cache"}


@contextmanager
def attending(model: Any, name: str) -> Iterator[None]:
    """Has a model use a registered attention function while the context is open.

    transformers makes no mask for a function that it knows none for: ours get None.
    """
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def same_again(
    model: Any,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts to compute a layer in, and to compute it again in later, by the same attention."""
    return nullcontext(), attending(model, model.config._attn_implementation)


def refuse_unknown(kwargs: Mapping[str, Any]) -> None:
    """Sees to it that nothing is passed that changes attention.

    Args:
        kwargs: What a model passes to its attention function by name.

    Raises:
        ValueError: A window, a cap, a bias or the like.
    """
    given = {name for name, value in kwargs.items() if value is not None and value is not False}
    if unknown := given - _HARMLESS:
        raise ValueError(f"attention with {', '.join(sorted(unknown))} is not known")


def refuse_states(model: Any) -> None:
    """Sees to it that all that a token takes from those before it is their keys and values.

    Raises:
        ValueError: A layer carries a state from token to token, or keeps the last tokens only.
    """
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) is not DynamicLayer:
            raise ValueError(f"a layer that needs a {type(layer).__name__} is not known")
