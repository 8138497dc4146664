"""How an experiment's pictures look: told apart in grey by dashes, markers and hatches too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from astarpo.runtime.files import write_atomic

# Okabe and Ito's colours, without the yellow that is lost on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (8, 2, 1, 2)), (0, (5, 1)), (0, (1, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "*")
_MAX_LABEL = 48
MAX_LINES = len(_COLORS)
"""As many lines as can be told apart."""
DPI = 150


def look(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the nth line."""
    place = number % len(_COLORS)
    return {"color": _COLORS[place], "linestyle": _DASHES[place], "marker": _MARKERS[place]}


def label(text: str) -> str:
    """Text that Matplotlib shows as it is: no formulas, no control characters, not too long."""
    text = "".join(c if c.isprintable() else " " for c in text).strip()
    if len(text) > _MAX_LABEL:
        text = f"{text[: _MAX_LABEL - 1]}…"
    # With an underscore in front it would be left out of legends.
    return text.lstrip("_").replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=DPI))


def finish(axis: Axes, x: str = "", y: str = "") -> None:
    """Names an axis pair and gives it the common grid."""
    if x:
        axis.set_xlabel(x, fontsize=9)
    if y:
        axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, handles: Sequence[Line2D]) -> None:
    """One legend for all panels."""
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=min(4, len(handles)),
        fontsize=8,
        frameon=False,
        handlelength=3.5,
    )


def token_unit(largest: float) -> tuple[float, str]:
    """What to divide token counts by, and what to call the result."""
    return (1e6, "millions") if largest >= 1e6 else (1e3, "thousands")
