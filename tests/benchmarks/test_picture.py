"""The README's picture, drawn of an experiment's results."""

import pytest

from astarpo.experiments.records import Experiment
from benchmarks.picture import picture


def run(algorithm: str, seed: int, stage1: int, rewards: list[float]) -> dict:
    tokens = [stage1 + 1000 * step for step in range(len(rewards))]
    curve = {"step": list(range(len(rewards))), "tokens": tokens, "reward": rewards}
    return {"variant": algorithm, "algorithm": algorithm, "seed": seed, "curve": curve}


def test_a_line_begins_where_stage_1_ends_and_is_the_mean_over_seeds():
    rows = [
        run("constant", 0, 4000, [0.4, 0.6, 0.8]),
        run("constant", 1, 4000, [0.2, 0.6, 0.9]),
        run("grpo", 0, 0, [0.4, 0.5]),
        run("rebel", 0, 0, [0.4, 0.1]),  # not in the picture
        run("grpo", 1, 0, [0.4, 0.0]) | {"state": "collapsed"},
    ]
    figure = picture(Experiment.model_validate({"kind": "compare", "rows": rows}))
    costs = figure.axes[1]
    ours, grpo = costs.get_lines()
    assert list(ours.get_xdata()) == [4, 5, 6]  # thousands
    assert list(ours.get_ydata()) == pytest.approx([0.3, 0.6, 0.85])
    assert list(grpo.get_ydata()) == [0.4, 0.5]
    assert [text.get_text() for text in costs.get_legend().get_texts()] == [
        "A*-PO, N = 1, 2 seeds",
        "GRPO, 1 seed",
    ]
    assert [text.get_text() for text in costs.texts] == ["stage 1"]
