"""Our own attention functions inside transformers' models, through its attention interface.

A model looks up its attention function by a name in its config, and passes it all it has: masks,
windows, caps. One of our functions is put in place for a while; it has to refuse whatever it does
not implement, or the model would silently compute something else.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Arguments that models pass to attention and that change nothing in evaluation mode.
_HARMLESS = {"dropout", "position_ids", "cache_position", "use_cache"}


@contextmanager
def attending(model: Any, name: str) -> Iterator[None]:
    """Makes a model use a registered attention function while the context is open.

    transformers makes no mask for functions that are not its own: ours get None.
    """
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def refuse_unknown(kwargs: Mapping[str, Any]) -> None:
    """Refuses what a model passes to its attention function by name, if it changes attention.

    Raises:
        ValueError: A window, a cap, a bias or the like.
    """
    given = {name for name, value in kwargs.items() if value is not None and value is not False}
    if unknown := given - _HARMLESS:
        raise ValueError(f"attention with {', '.join(sorted(unknown))} is not known")


def refuse_states(model: Any) -> None:
    """Refuses models in which a token takes more from those before it than keys and values.

    Raises:
        ValueError: A layer carries a state from token to token, or keeps the last tokens only.
    """
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) is not DynamicLayer:
            raise ValueError(f"a layer that needs a {type(layer).__name__} is not known")
