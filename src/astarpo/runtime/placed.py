"""An object in a process of a cluster, which has its place there before it is made.

Imports next to nothing: a process of a Ray actor answers as soon as the cluster has room for it,
and only then imports what the object needs, which may take a minute.
"""

from collections.abc import Callable
from typing import Any


class Placed:
    """What is in the process: nothing at first, then an object that can be asked."""

    def __init__(self) -> None:
        self._object: Any = None

    def place(self) -> None:
        """Returns once the process is there."""

    def make(self, kind: Callable[..., Any], *arguments: Any) -> Any:
        """Makes the object and opens it; returns what its `open` does."""
        self._object = kind(*arguments)
        return self._object.open()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the object."""
        return getattr(self._object, method)(*arguments)
