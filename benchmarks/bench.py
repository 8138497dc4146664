"""What the parts of `h100.py` share: their sizes, what the card can do, and their rows."""

import gc
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from workload import QWEN_1_5B, QWEN_HALF_B, Load, Shape, timed

Row = dict[str, Any]

# Bytes and flops (bf16, dense) a second that the makers name; of other cards what is measured.
_NAMED = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12)}


@dataclass(frozen=True)
class Sizes:
    """Of everything.

    Attributes:
        small: A model.
        large: A larger one.
        prompts: Of a step, and the rows decoded at once.
        prompt: Tokens of each.
        response: Tokens of each response, but where they end by chance.
        mean_response: Where they do.
        budgets: Of tokens in a micro-batch.
        updated: Sequences in a measured update.
        generate_seconds: Limit of a call of `generate`.
        trl_batch: Sequences of TRL's micro-batches.
        scaled: Where the series of `scaling` begin.
        matrix: Rows and columns of the products that measure the card.
        copied: Bytes of the copy that does.
    """

    small: Shape
    large: Shape
    prompts: int
    prompt: int
    response: int
    mean_response: int
    budgets: tuple[int, ...]
    updated: int
    generate_seconds: float
    trl_batch: int
    scaled: Load
    matrix: int
    copied: int


FULL = Sizes(
    small=QWEN_HALF_B,
    large=QWEN_1_5B,
    prompts=256,
    prompt=256,
    response=1024,
    mean_response=300,
    budgets=(8192, 16384, 32768),
    updated=64,
    generate_seconds=15.0,
    trl_batch=8,
    scaled=Load("small", 128, 2, 64),
    matrix=8192,
    copied=1 << 31,
)
TINY = Sizes(
    small=Shape("tiny", 32, 2, 4, 2, 64, 300),
    large=Shape("less tiny", 48, 2, 4, 2, 96, 300),
    prompts=16,
    prompt=8,
    response=12,
    mean_response=4,
    budgets=(128, 256, 512),
    updated=16,
    generate_seconds=15.0,
    trl_batch=4,
    scaled=Load("small", 8, 2, 8),
    matrix=128,
    copied=1 << 20,
)


class Bench:
    """One part: where it runs, how large, what the card can do, and its rows.

    Attributes:
        sizes: Of everything.
        device: The GPU; the CPU in a dry run.
        bandwidth: Bytes a second, as the maker names it, and
        measured_bandwidth: as a copy has it.
        peak: Flops a second, as the maker names it, and
        measured_peak: as a large matrix product has it.
    """

    def __init__(self, part: str, sizes: Sizes, device: torch.device, rows: Path) -> None:
        """Measures the card.

        Args:
            part: Its name.
            sizes: Of everything.
            device: Where it runs.
            rows: File that gets a line of JSON for each row.
        """
        self.sizes, self.device = sizes, device
        self._part, self._file = part, rows
        self._columns: tuple[str, ...] = ()
        card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        self.measured_bandwidth = copy_bandwidth(device, sizes.copied)
        self.measured_peak = matrix_peak(device, sizes.matrix)
        measured = self.measured_bandwidth, self.measured_peak
        self.bandwidth, self.peak = next((_NAMED[key] for key in _NAMED if key in card), measured)
        rates = {"copied GB/s": measured[0] / 1e9, "named GB/s": self.bandwidth / 1e9}
        rates |= {"measured TFLOP/s": measured[1] / 1e12, "named TFLOP/s": self.peak / 1e12}
        self.row(card, rates)
        self.free()

    def row(self, name: str, values: Row) -> None:
        """Prints a row, below the names of its columns where they are new, and keeps it."""
        cells = {column: _shown(value) for column, value in values.items()}
        widths = [max(9, len(column) + 2, len(cell) + 2) for column, cell in cells.items()]
        if tuple(values) != self._columns:
            self._columns = tuple(values)
            print(f"{'':44}{_line(cells.keys(), widths)}")
        print(f"  {name:42}{_line(cells.values(), widths)}", flush=True)
        self._keep(name, values)

    def fail(self, name: str, reason: str) -> None:
        """Prints and keeps why a row is missing."""
        print(f"  {name:42}  {reason}", flush=True)
        self._keep(name, {"failed": reason})

    def _keep(self, name: str, values: Row) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": self._part, "row": name} | values) + "\n")

    def attempt(self, name: str, measure: Callable[..., Row], *args: Any, **kwargs: Any) -> Row:
        """Measures a row; where that fails, for a lack of memory say, the row says so.

        Returns:
            The row; where it failed, nothing.
        """
        started = time.perf_counter()
        try:
            values = measure(*args, **kwargs)
        except torch.OutOfMemoryError:
            failure = "out of memory"
        except Exception as error:  # Whatever it is: a row must not take the others with it.
            lines = str(error).strip().splitlines() or [""]
            failure = f"{type(error).__name__}: {lines[0][:200]}"
        else:
            self.row(name, values | {"took s": time.perf_counter() - started})
            self.free()
            return values
        self.fail(name, failure)
        self.free()
        return {}

    def free(self) -> None:
        """Gives unused memory back and forgets the peak so far."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def held_gib(self) -> float:
        """Memory in use now; 0 on the CPU, as below."""
        return torch.cuda.memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0

    def peak_gib(self) -> float:
        """Most memory in use since `free`."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0

    def reserved_gib(self) -> float:
        """Most memory taken from the GPU since `free`."""
        return torch.cuda.max_memory_reserved() / 2**30 if self.device.type == "cuda" else 0.0


def copy_bandwidth(device: torch.device, count: int) -> float:
    """Bytes that copying so many bytes reads and writes, a second."""
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = timed(lambda: [target.copy_(source) for _ in range(5)])
    return 5 * 2 * count / seconds


def matrix_peak(device: torch.device, size: int) -> float:
    """Flops a second of a square product in bf16."""
    left = torch.randn(size, size, device=device).bfloat16()
    right = torch.randn(size, size, device=device).bfloat16()
    for _ in range(3):
        left @ right
    seconds = timed(lambda: [left @ right for _ in range(10)])
    return 10 * 2 * size**3 / seconds


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
