"""Repeating a computation of fixed shapes without launching its kernels one by one.

A decoding step is hundreds of kernels, each done sooner than Python launches the next. A CUDA graph
launches them all at once.
"""

from collections.abc import Callable

import torch


class Replay:
    """Calls a function, or replays what it did on the device.

    What is recorded must read and write the same tensors in place, with the same shapes, at every
    call, and must not wait for the device.

    Args:
        function: Takes nothing, returns nothing.
        record: Whether to record it; otherwise it is called each time.
    """

    def __init__(self, function: Callable[[], None], *, record: bool) -> None:
        self._function = function
        self._record = record
        self._warm = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._current = False

    def __call__(self) -> None:
        """Runs the function once."""
        if not self._record or not self._warm:  # libraries set themselves up at the first call
            self._function()
            self._warm = True
            return
        if self._graph is None or not self._current:
            graph = torch.cuda.CUDAGraph()
            # The old graph must live until the new one has taken over its memory.
            pool = self._graph.pool() if self._graph is not None else None
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                self._function()
            self._graph, self._current = graph, True
        self._graph.replay()

    def renew(self) -> None:
        """Says that tensors have moved or changed shape since the last call."""
        self._current = False
