"""The drawing of curves, its look, and how it goes into pages."""

import base64
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from astarpo.reports import style
from astarpo.reports.curves import (
    Line,
    Panel,
    curves_figure,
    panel_figure,
    points,
    running_mean,
)
from astarpo.reports.plots import (
    _draw_estimates,
    columns_of,
    curve_pictures,
    held_out_columns,
    held_out_pictures,
    plot_run,
    plot_runs,
)
from astarpo.reports.style import MAX_LINES, embed, label, look

PANEL = Panel("step", "reward", "training steps", "mean reward")


def run(rewards: list[float | None], tokens_per_step: float = 100) -> dict[str, list]:
    steps = list(range(1, len(rewards) + 1))
    return {
        "step": steps,
        "seconds": [2.0 * s for s in steps],
        "tokens": [tokens_per_step * s for s in steps],
        "reward": rewards,
    }


def drawn(axis) -> list[tuple[list[float], list[float]]]:
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axis.lines]


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_run_is_drawn_raw_and_smoothed():
    (axis,) = panel_figure(PANEL, [Line("a", [run([0.0, 1.0, 0.5])])], smooth=2).axes
    raw, mean = drawn(axis)
    assert raw == ([1, 2, 3], [0, 1, 0.5])
    assert mean == ([1, 2, 3], [0, 0.5, 0.75])
    assert axis.get_xlabel() == "training steps"
    assert axis.get_xlim()[0] == 0


def test_several_runs_of_a_line_are_a_mean_with_a_band():
    line = Line("a (2 runs)", [run([0.0, 0.2]), run([0.4, 0.6])])
    (axis,) = panel_figure(PANEL, [line]).axes
    assert drawn(axis) == [([1, 2], pytest.approx([0.2, 0.4]))]
    (band,) = axis.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == 0
    assert corners[:, 1].max() == pytest.approx(0.6)


def test_a_collapsed_run_ends_in_a_cross():
    figure = curves_figure([[PANEL]], [Line("a", [run([0.1, 0.2])], [run([0.3, 0.0])])], target=0.5)
    _, collapsed, cross, target = figure.axes[0].lines
    assert collapsed.get_ydata().tolist() == [0.3, 0.0]
    assert cross.get_marker() == "x"
    assert cross.get_xdata().tolist() == [2]
    assert target.get_ydata() == [0.5, 0.5]
    assert words(figure) == ["a", "a run that collapsed, where it ended", "target 0.5"]


def test_a_held_out_reward_has_its_interval():
    rows = [{"step": s, "seconds": 2.0 * s, "tokens": 9 * s, "reward": 0.4 + s / 100, "low": 0.3,
             "high": 0.9} for s in (0, 10, 20)]  # fmt: skip
    columns = held_out_columns([*rows, {"step": 30, "reward": 0.9}])
    assert columns["step"] == [0, 10, 20]
    (axis,) = panel_figure(PANEL, [Line("a", [columns])]).axes
    assert drawn(axis) == [([0, 10, 20], pytest.approx([0.4, 0.5, 0.6]))]
    corners = axis.collections[-1].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.3, 0.9)
    pictures = held_out_pictures({"a": columns})
    assert list(pictures) == ["step", "seconds", "tokens"]
    assert "held-out reward" in svg_of(pictures["step"])
    assert held_out_pictures({"a": held_out_columns(rows[:1])}) == {}


def test_noise_does_not_fill_a_picture():
    steady = run([0.5, 0.501, 0.5])
    (axis,) = panel_figure(Panel("step", "reward", "x", min_span=0.1), [Line("a", [steady])]).axes
    low, high = axis.get_ylim()
    assert high - low == pytest.approx(0.1)
    assert (low + high) / 2 == pytest.approx(0.5005)
    # What is never negative keeps its zero.
    (axis,) = panel_figure(
        Panel("step", "reward", "x", min_span=0.1), [Line("a", [run([0, 1e-9])])]
    ).axes
    assert axis.get_ylim() == pytest.approx((0, 0.1))
    (axis,) = panel_figure(PANEL, [Line("a", [run([1e6, 1e6 + 1])])]).axes
    low, high = axis.get_ylim()
    assert high - low == pytest.approx(0.05 * 1e6, rel=1e-3)


def test_errors_of_v_star_stay_within_the_rewards():
    figure = Figure()
    axis = figure.subplots()
    _draw_estimates(axis, np.array([[0.0, 0.05, 0.2], [1.0, 0.95, 0.2], [0.5, 0.5, 0.1]]))
    (bars,) = axis.collections
    ends = sorted((float(low[1]), float(high[1])) for low, high in bars.get_segments())
    assert ends == [pytest.approx(x) for x in [(0.0, 0.25), (0.4, 0.6), (0.75, 1.0)]]


def test_every_axis_of_a_page_has_its_name():
    pictures = curve_pictures({"a": columns_of([{"step": s, "kl": 0.1 * s} for s in (1, 2)])})
    svg = svg_of(pictures["kl"]["step"])
    assert "training steps" in svg
    assert "KL to reference" in svg
    assert "(nats per response)" in svg


def test_what_is_missing_is_left_out():
    x, y = points(run([0.1, None, float("nan"), 0.4]), "seconds", "reward")
    assert x.tolist() == [2, 8]
    assert y.tolist() == [0.1, 0.4]
    nothing = Line("none", [run([]), run([None, None])])
    (axis,) = panel_figure(PANEL, [nothing], smooth=10).axes
    assert all(x == [] for x, _ in drawn(axis))


def test_tokens_are_counted_in_what_reads_well():
    panel = Panel("tokens", "reward", "generated tokens ({unit})")
    (axis,) = panel_figure(panel, [Line("a", [run([0.5] * 3)])]).axes
    assert axis.get_xlabel() == "generated tokens (thousands)"
    assert drawn(axis)[0][0] == [0.1, 0.2, 0.3]
    (axis,) = panel_figure(panel, [Line("a", [run([0.5] * 3, 1e6)])]).axes
    assert axis.get_xlabel() == "generated tokens (millions)"
    assert drawn(axis)[0][0] == [1, 2, 3]


def test_the_running_mean_forgets_what_was_before():
    assert running_mean(np.array([]), 10).tolist() == []
    assert running_mean(np.array([1e30, 1.0, 2.0, 3.0]), 2)[2:].tolist() == [1.5, 2.5]


def test_lines_are_told_apart_without_colour():
    looks = [look(number) for number in range(MAX_LINES)]
    for name in ("color", "linestyle", "marker"):
        assert len({str(found[name]) for found in looks}) == MAX_LINES
    assert look(MAX_LINES) == look(0)
    lines = [Line(str(i), [run([0.1 * i] * 30)]) for i in range(3)]
    (axis,) = panel_figure(PANEL, lines).axes
    assert [to_hex(line.get_color()) for line in axis.lines] == [
        found["color"].lower() for found in looks[:3]
    ]
    assert [line.get_marker() for line in axis.lines] == ["o", "s", "^"]


def test_a_run_looks_the_same_in_its_file_and_in_a_page(tmp_path, monkeypatch):
    """Both are drawn by the same function from the same columns."""
    rows = [{"step": s, "reward": 0.1 * s, "seconds": 2, "tokens": 7} for s in range(1, 4)]
    figures = []
    monkeypatch.setattr(
        "astarpo.reports.plots.save", lambda figure, path: figures.append((path.name, figure))
    )
    plot_run(tmp_path / "curves.png", rows)
    plot_runs(tmp_path / "r-curves.png", {"a": columns_of(rows)})
    monkeypatch.setattr(
        "astarpo.reports.plots.embed", lambda figure: figures.append(("page", figure))
    )
    assert list(curve_pictures({"a": columns_of(rows)})) == ["reward"]
    assert [name for name, _ in figures] == ["curves.png", "r-curves.png", *["page"] * 3]
    against_steps = [drawn(figure.axes[0]) for _, figure in figures[:3]]
    assert against_steps[0] == against_steps[1] == against_steps[2]
    assert figures[3][1].axes[0].lines[0].get_xdata().tolist() == [2, 4, 6]


def svg_of(picture) -> str:
    kind, _, data = picture.partition(";base64,")
    assert kind == "data:image/svg+xml"
    return base64.b64decode(data).decode("utf-8")


def test_names_in_pictures_stay_text():
    hostile = "_$x^$ </text><script>alert(1)</script>\x00\ud800\u2028" + "y" * 100
    text = label(hostile)
    assert len(text) <= 60
    figure = curves_figure([[PANEL]], [Line(text, [run([0.1, 0.2])])])
    svg = svg_of(embed(figure))
    assert "<script" not in svg
    ElementTree.fromstring(svg)  # is well-formed
    assert "$x^$ &lt;/text&gt;&lt;script&gt;" in svg


def test_the_same_picture_has_the_same_bytes():
    made = [embed(panel_figure(PANEL, [Line("a", [run([0.1, 0.2])])])) for _ in range(2)]
    assert made[0] == made[1]


def test_a_long_picture_is_a_png(monkeypatch):
    figure = panel_figure(PANEL, [Line("a", [run([0.1, 0.2])])])
    monkeypatch.setattr(style, "_MAX_SVG_BYTES", 100)
    kind, _, data = embed(figure).partition(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_a_file_is_written_whole(tmp_path: Path):
    plot_runs(tmp_path / "c.png", {"a $b$": columns_of([{"step": 1, "reward": 0.5}])})
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]
