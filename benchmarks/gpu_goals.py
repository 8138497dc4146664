"""The goals that `gpu.py` holds its rows against."""

from collections.abc import Callable, Mapping
from typing import Any

Row = dict[str, Any]


def goals(record: Mapping[str, Any], shape: str, prompts: int) -> list[Row]:
    """Each goal with what was measured; a goal whose rows are missing or failed is not met.

    Args:
        record: Rows by part.
        shape: The name of the larger model.
        prompts: Of a step.
    """
    steps = {row["row"]: row for row in record.get("algorithms", [])}

    def best(part: str, name: str, keep: Callable[[str], bool] = lambda _: True) -> float | None:
        values = [row[name] for row in record.get(part, []) if name in row and keep(row["row"])]
        return max(values, default=None)

    def ratio(name: str, slower: str, faster: str) -> float | None:
        pair = [steps.get(f"{prompts} prompts, {each}", {}).get(name) for each in (slower, faster)]
        return pair[0] / pair[1] if all(pair) else None

    saved = ratio("GiB", "A*-PO", "PPO")
    found = {
        "stage 1 over bare vLLM": (best("generation", "of bare"), 0.90),
        "update, share of the matrix peak": (
            best("update", "of peak", lambda row: row.startswith(shape) and "compiled" not in row),
            0.35,
        ),
        "the same of a compiled one": (
            best("update", "of peak", lambda row: row.startswith(shape) and "compiled" in row),
            0.45,
        ),
        "a step of GRPO(8) over one of A*-PO": (ratio("step s", "GRPO(8)", "A*-PO"), 2.0),
        "memory saved over PPO": (None if saved is None else 1 - saved, 0.30),
    }
    return [
        {"goal": name, "measured": value, "wanted": wanted, "met": (value or 0.0) >= wanted}
        for name, (value, wanted) in found.items()
    ]
