"""The look of all pictures. Lines differ in colour, and in dashes and markers, which grey keeps.

Pictures in files and in Markdown are PNG, pictures in pages SVG.
"""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from astarpo.runtime.files import write_atomic
from astarpo.runtime.words import printable

# Okabe and Ito's colours, without the yellow that is lost on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (8, 2, 1, 2)), (0, (5, 1)), (0, (1, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "*")
_DPI = 150
_MAX_LABEL = 48
# A longer SVG is slower to show than the same picture as PNG, and larger.
_MAX_SVG_BYTES = 150_000
# Coordinates in points, of which nobody sees more than two decimals.
_PATH = re.compile(rb'(?<= d=")[^"]+')
_DIGITS = re.compile(rb"(\.\d\d)\d+")

MAX_LINES = len(_COLORS)
"""The number of lines that can be told apart."""
LINE: dict[str, Any] = {"linewidth": 1.8, "markersize": 5}
GUIDE: dict[str, Any] = {"color": "0.35", "linewidth": 1, "linestyle": (0, (6, 3))}
"""Look of a line to compare with: a target, the reference policy."""
BAR: dict[str, Any] = {"edgecolor": "0.2", "linewidth": 0.5}


def look(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the nth line; they repeat after `MAX_LINES`."""
    place = number % MAX_LINES
    return {"color": _COLORS[place], "linestyle": _DASHES[place], "marker": _MARKERS[place]}


def label(text: str) -> str:
    """Text that Matplotlib shows as it is: no formulas, no control characters, not too long."""
    text = printable(text, kept="", instead=" ").strip()
    if len(text) > _MAX_LABEL:
        text = f"{text[: _MAX_LABEL - 1]}…"
    # With an underscore in front it would be left out of legends.
    return text.lstrip("_").replace("$", r"\$")


def single_panel(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A picture with one panel and fixed margins, which is several times faster than a layout."""
    figure = Figure(figsize=size)
    axis = figure.subplots()
    figure.subplots_adjust(left=0.19, right=0.97, bottom=0.19, top=0.91)
    return figure, axis


def finish(axis: Axes, x: str = "", y: str = "") -> None:
    """Names the axes of a panel and gives it the common grid."""
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.yaxis.get_offset_text().set_fontsize(8)
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """One legend for all panels of a picture."""
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=min(4, len(handles)),
        fontsize=8,
        frameon=False,
        handlelength=3.5,
    )


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=_DPI))


def embed(figure: Figure) -> str:
    """A `data:` URL of the picture as SVG, or as PNG if the SVG would be long."""
    kind, data = "svg+xml", _bytes(figure, "svg")
    if len(data) > _MAX_SVG_BYTES:
        kind, data = "png", _bytes(figure, "png")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _bytes(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    # Text stays text in the reader's fonts, and the bytes do not depend on the time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "astarpo"}):
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(file, format=kind, dpi=_DPI, metadata=metadata)
    data = file.getvalue()
    return data if kind == "png" else _PATH.sub(lambda path: _DIGITS.sub(rb"\1", path[0]), data)
