"""What cards say of tables and runs beyond the plainest ones."""

import json

import pytest

from astarpo import ValueTable
from astarpo.config.setting import ALGORITHM_NAMES
from astarpo.reports.cards import model_card, table_card
from astarpo.rundir.reader import RunDirectory
from astarpo.values.controls import Zero
from astarpo.values.estimators import Plugin
from tests.conftest import digit_problems
from tests.values.test_table import FINGERPRINT, sample


def run_of(tmp_path, **settings) -> RunDirectory:
    settings = {"model": "me/base", "steps": 2, **settings}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return RunDirectory(tmp_path, tmp_path, is_recipe=False)


@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_a_model_card_links_the_paper_of_every_algorithm(algorithm, tmp_path):
    card = model_card(run_of(tmp_path, algorithm=algorithm))
    assert "([paper](https://arxiv.org/abs/" in card
    assert f"by {algorithm} " not in card  # its title instead


def test_a_model_card_tells_that_first_steps_learned_from_stage_1(tmp_path):
    plain = model_card(run_of(tmp_path, algorithm="astar_po", first_rollouts="policy"))
    assert "learned from the samples of stage 1" not in plain
    card = model_card(run_of(tmp_path, algorithm="astar_po", first_rollouts="stage1"))
    assert "learned from the samples of stage 1" in card


def test_a_model_card_of_spo_tells_where_its_values_start(tmp_path):
    card = model_card(run_of(tmp_path, algorithm="spo", clip_high=0.3))
    assert "by SPO ([paper](https://arxiv.org/abs/2509.13232))" in card
    assert "| `clip_high` | 0.3 |" in card


def test_a_table_card_tells_unequal_counts_and_unknown_errors(tmp_path):
    problems = digit_problems(2)
    table = ValueTable.start(tmp_path, FINGERPRINT, {})
    table.append([sample(problems[0], n, 1.0) for n in range(2)])
    table.append([sample(problems[1], n, 0.0) for n in range(5)])
    table.write_values(problems, table.values(problems, Plugin(0.5), [2, 5]))
    assert "estimated offline from 2 or 5 samples of each" in table_card(table, "me/values")

    table.write_values(problems, table.values(problems, Zero(0.5), [2, 5]))
    card = table_card(ValueTable(tmp_path), "me/values")
    assert "nan" not in card
    assert "| standard error of V\\* | not known |" in card
