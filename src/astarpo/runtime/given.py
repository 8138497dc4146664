"""What a call in Python hands over under a name: reward functions, tasks, algorithms.

Settings are text, so that a run's `config.json` can hold them; an object of the user's is named
there by its module and qualified name. The object itself is found here, and only while the call
that handed it over lasts: no file can bring one. Worker processes get it pickled, from the memory
of the process that has it (see `grading/worker.py`).
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cloudpickle

from astarpo.runtime.code import code_digest
from astarpo.types import UserError


@dataclass(frozen=True)
class Given:
    """An object of the user's.

    Attributes:
        name: What stands for it in settings and files.
        value: A function, or a class or an instance of one.
        version: Digest of its code, and of the values that it was made with.
    """

    name: str
    value: Any
    version: str

    @classmethod
    def of(cls, name: str, value: Any) -> "Given":
        """Puts a digest beside an object."""
        return cls(name, value, f"code {code_digest(value)}")

    @cached_property
    def pickled(self) -> bytes:
        """The object for another process, with the functions and values that it uses.

        Raises:
            UserError: Something that it uses cannot be sent, such as an open file or a lock.
        """
        try:
            return cloudpickle.dumps(self.value)
        except Exception as error:  # whatever the user's objects raise
            raise UserError(
                f"{self.name} cannot be sent to the processes that judge answers ({error}): let it "
                "make or open what it needs itself, instead of using what is outside of it"
            ) from error


_given: dict[str, list[Given]] = {}
_lock = threading.Lock()


def given(name: str) -> Given | None:
    """What goes by a name in the calls that are going on; None if nothing does."""
    return _given[name][0] if name in _given else None


def given_now() -> list[Given]:
    """Everything that the calls that are going on have handed over, for a process elsewhere."""
    with _lock:
        return [objects[0] for objects in _given.values()]


@contextmanager
def hand_over(objects: Mapping[str, Any]) -> Iterator[None]:
    """Lets objects be found by their names while the block lasts, and no longer.

    Raises:
        UserError: Another call, still going on, has handed over something else by the same name.
    """
    fresh = [Given.of(name, value) for name, value in objects.items()]
    with _lock:
        for each in fresh:
            if (there := given(each.name)) and there.version != each.version:
                raise UserError(
                    f"{each.name}: a call that is still going on uses another object of this name; "
                    "give one of them another name"
                )
        for each in fresh:
            _given.setdefault(each.name, []).append(each)
    try:
        yield
    finally:
        with _lock:
            for each in fresh:
                _given[each.name].remove(each)
                if not _given[each.name]:
                    del _given[each.name]


def accept(name: str, version: str, pickled: bytes) -> None:
    """Takes over, for the life of this worker process, what the process that started it has.

    It runs code: never call it with bytes from a file.
    """
    _given[name] = [Given(name, cloudpickle.loads(pickled), version)]


def reference_of(value: Any) -> str:
    """How an object of the user's is named: `MODULE:QUALIFIED.NAME`, of its class if it has none.

    A name that no import finds, such as `__main__:score`, is one that only a call in Python brings.
    """
    if not hasattr(value, "__qualname__"):
        value = type(value)
    return f"{getattr(value, '__module__', None) or '__main__'}:{value.__qualname__}"


def is_given_only(reference: str) -> bool:
    """Whether a name is of something that cannot be imported, but only be given in Python."""
    module, _, name = reference.rpartition(":")
    return module == "__main__" or "<" in name
