"""Counts the bytes of all tensors that are alive, by what they are for, while work is done on them.

What kernels need besides (workspaces, the allocator's gaps, a GPU's context) is not seen.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten

Kinds = Counter[str]
"""Bytes by kind: weights, gradients, moments, reference, copies, logits, activations."""


class LiveBytes(TorchDispatchMode):
    """Follows every storage of a fake tensor from its making to its end.

    Attributes:
        peaks: For each window, which `enter` opens, what was alive when most was.
    """

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.peaks: dict[str, Kinds] = {}
        self._vocabulary_size = vocabulary_size
        self._now: Kinds = Counter()
        self._total = 0
        self._window = ""
        self._most = -1
        self._kinds: dict[int, str] = {}
        self._held: dict[int, weakref.ref[Any]] = {}
        self._weights: set[int] = set()
        self._making: str | None = None

    def register(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Counts tensors that are there already, or puts such as are counted under another kind."""
        for tensor in tensors:
            self._count(tensor, kind)
            key = id(tensor.untyped_storage())
            size = tensor.untyped_storage().nbytes()
            self._now[self._kinds[key]] -= size
            self._now[kind] += size
            self._kinds[key] = kind
            if kind in ("weights", "reference"):
                self._weights.add(key)

    def enter(self, window: str) -> None:
        """Opens a window; one that was open before goes on, and keeps the larger of its peaks."""
        self._window = window
        self._most = sum(self.peaks[window].values()) if window in self.peaks else -1
        self._look()

    def making(self, kind: str | None) -> None:
        """Says what kind all new tensors are of; with None each tells by itself."""
        self._making = kind

    def gradients_of(self, module: nn.Module) -> None:
        """Counts the gradients of a module's parameters as such once they are summed."""
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._summed)

    def _summed(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.register([parameter.grad], "gradients")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs an operation and counts what it made."""
        if func is _aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            # A fake tensor has no number to tell. The learner asks whether losses and gradients are
            # finite, and whether two ways of computing agree: they do.
            dtype = args[0].dtype
            return True if dtype == torch.bool else 0.0 if dtype.is_floating_point else 0
        if func is _aten.equal.default and any(isinstance(a, FakeTensor) for a in args):
            return True
        if self._window == "head" and in_backward():
            self.enter("head backward")  # in which autocast's copies are gone
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, FakeTensor):
                self._count(tensor, self._making or self._kind(func, args, tensor))
        return out

    def _kind(self, func: Any, args: tuple[Any, ...], made: Tensor) -> str:
        casts = func is _aten._to_copy.default and isinstance(args[0], FakeTensor)
        if casts and id(args[0].untyped_storage()) in self._weights:
            return "copies"  # autocast's
        # Gradients of the output layer's weights have the vocabulary first.
        if made.ndim > 1 and made.shape[-1] == self._vocabulary_size:
            return "logits"
        return "activations"

    def _count(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._held:
            return
        size = storage.nbytes()
        self._kinds[key] = kind

        def gone(_: object) -> None:
            self._now[self._kinds.pop(key)] -= size
            self._total -= size
            self._held.pop(key, None)
            self._weights.discard(key)

        self._held[key] = weakref.ref(storage, gone)
        self._now[kind] += size
        self._total += size
        self._look()

    def _look(self) -> None:
        if self._window and self._total > self._most:
            self._most = self._total
            self.peaks[self._window] = Counter(self._now)


def in_backward() -> bool:
    """Whether autograd is computing gradients now."""
    return torch._C._current_autograd_node() is not None
