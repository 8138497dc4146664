"""A digest of a user's function or class: the same as long as it computes the same.

It is of the bytecode, so comments, file names and line numbers do not count, and of what the code
uses: defaults, closures, and global names, of which functions and classes of the same module go in
by their code and those of libraries by their names. Another minor version of Python compiles to
other bytecode, which counts as a change.
"""

import dis
import functools
import hashlib
import types
from collections.abc import Iterable, Iterator
from typing import Any


def code_digest(value: Any) -> str:
    """Digest of a function, a class or an instance, as 24 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=12)
    for part in _Reader(value).parts(value, is_root=True):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


class _Reader:
    """Goes through an object once; what it meets again is named by its place."""

    def __init__(self, root: Any) -> None:
        kind = root if hasattr(root, "__module__") else type(root)
        self._modules = {"__main__", kind.__module__}
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is used a second time

    def parts(self, value: Any, *, is_root: bool = False) -> Iterator[str]:
        """Pieces of text that together say what a value is."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            yield f"{type(value).__name__} {value!r}"
            return
        if isinstance(value, types.ModuleType):
            yield f"module {value.__name__}"
            return
        if id(value) in self._seen:
            yield f"again {self._seen[id(value)]}"
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        yield type(value).__qualname__
        if isinstance(value, types.CodeType):
            yield from self._code(value)
        elif isinstance(value, types.FunctionType) and self._is_own(value, is_root):
            yield from self._function(value)
        elif isinstance(value, type) and self._is_own(value, is_root):
            yield from self._class(value)
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            yield f"{value.__module__}.{value.__qualname__}"
        elif isinstance(value, tuple | list):
            yield from self._each(value)
        elif isinstance(value, dict):
            yield from self._each([*value.keys(), *value.values()])
        elif isinstance(value, set | frozenset):
            yield from sorted(code_digest(item) for item in value)
        else:
            yield from self._instance(value)

    def _is_own(self, value: Any, is_root: bool) -> bool:
        return is_root or value.__module__ in self._modules

    def _each(self, values: Iterable[Any]) -> Iterator[str]:
        for value in values:
            yield from self.parts(value)

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        cells = [_content(cell) for cell in function.__closure__ or ()]
        yield from self._each([function.__code__, function.__defaults__, function.__kwdefaults__])
        yield from self._each(cells)
        for name in sorted(_global_names(function.__code__) & function.__globals__.keys()):
            yield name
            yield from self.parts(function.__globals__[name])

    def _code(self, code: types.CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        yield from self._each([code.co_names, code.co_varnames, code.co_freevars, code.co_flags])
        yield from self._each([code.co_argcount, code.co_kwonlyargcount, code.co_consts])

    def _class(self, kind: type) -> Iterator[str]:
        yield kind.__qualname__
        yield from self._each(kind.__bases__)
        for name, member in sorted(vars(kind).items()):
            if name in _OF_THE_PLACE or type(member) in _MADE_FOR_EVERY_CLASS:
                continue
            yield name
            if isinstance(member, staticmethod | classmethod):
                member = member.__func__
            elif isinstance(member, property | functools.cached_property):
                member = getattr(member, "fget", None) or getattr(member, "func", None)
            # What `dataclass` and the like wrote has no module of its own to be known by.
            yield from self.parts(member, is_root=isinstance(member, types.FunctionType))

    def _instance(self, value: Any) -> Iterator[str]:
        yield from self.parts(type(value))
        try:
            recipe = value.__reduce_ex__(2)  # as `pickle` asks for it
        except Exception:  # of any type: it cannot be sent to another process either
            return
        made_by, *state = [recipe] if isinstance(recipe, str) else recipe
        yield from self.parts(made_by)
        yield from self._each(list(part) if isinstance(part, Iterator) else part for part in state)


_OF_THE_PLACE = {
    "__module__", "__dict__", "__weakref__", "__doc__", "__firstlineno__", "__static_attributes__",
    "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__",
    "__dataclass_params__", "__dataclass_fields__", "__match_args__", "__abstractmethods__",
    "_abc_impl", "__parameters__", "__orig_bases__", "__slotnames__",
}  # fmt: skip
_MADE_FOR_EVERY_CLASS = {types.GetSetDescriptorType, types.MemberDescriptorType}


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is still empty
        return None


def _global_names(code: types.CodeType) -> set[str]:
    """Names that code, also that of functions inside it, looks up outside of all functions."""
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return names.union(*map(_global_names, inner))
