import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from astarpo.algorithms.astar_po import AStarPO
from astarpo.models.prompts import open_prompts
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.tasks.problem_set import read_problems
from astarpo.training.learner import Learner
from astarpo.training.schedule import step_places
from astarpo.training.scoring import policy_logprobs
from astarpo.training.stage1 import is_from_stage1, open_stage1
from astarpo.types import UserError
from astarpo.values.estimators import Plugin
from astarpo.values.table import ValueTable
from tests.training.test_learner import ALONE, make_answers, make_config, with_values


@pytest.fixture(scope="module")
def table(table_path):
    return ValueTable(table_path)


@pytest.fixture(scope="module")
def prompts(policy, problems_path):
    return open_prompts(read_problems(problems_path), policy.vocabulary, "raw", 256, 24)


def opened(table, prompts, kept=None, **changes):
    config = make_config(first_rollouts="stage1", prompts_per_step=10, **changes)
    return open_stage1(config, table, prompts, kept or prompts), config


def test_each_epoch_takes_another_sample_of_every_problem(table, prompts):
    stage1, config = opened(table, prompts)
    rows = {(r["problem_id"], r["sample"]): r for r in table.samples().to_pylist()}
    rewards_PN = table.rewards([prompt.problem for prompt in prompts])
    seen = []
    for step in range(1, 20):  # 190 of 192 samples
        answers = stage1.answers(step)
        places = step_places(24, config, step)
        for k, (answer, place) in enumerate(zip(answers, places, strict=True)):
            number = (10 * (step - 1) + k) // 24
            row = rows[prompts[place].problem.id, number]
            assert answer.prompt.problem == prompts[place].problem
            assert answer.completion.token_ids == tuple(row["token_ids"])
            assert (answer.text, answer.verdict.reward) == (row["text"], row["reward"])
            others = np.delete(rewards_PN[place], number)
            assert answer.prompt.value == pytest.approx(Plugin(0.5).estimate(others[None])[0][0])
            seen.append((place, number))
    assert len(set(seen)) == 190
    assert stage1.answers(20) is None  # It would need ten, and two are left.


def test_estimators_are_fitted_before_the_filter(table, prompts):
    whole, _ = opened(table, prompts, estimator="shrunk")
    part, _ = opened(table, prompts, kept=prompts[::2], estimator="shrunk", values_samples=8)
    values = {
        (a.prompt.problem.id, a.completion.token_ids): a.prompt.value
        for step in range(1, 20)
        for a in whole.answers(step)
    }
    for answer in part.answers(1):
        key = (answer.prompt.problem.id, answer.completion.token_ids)
        assert values.get(key, answer.prompt.value) == answer.prompt.value


def test_it_ends_for_good_beyond_the_bound(table, prompts):
    stage1, _ = opened(table, prompts, stage1_drift=0.3)
    near, far = [{"rollout": "stage1", "stage1_drift": drift} for drift in (0.3, 0.31)]
    assert stage1.goes_on_after([])
    assert stage1.goes_on_after([near, near])
    assert not stage1.goes_on_after([near, far])
    assert not stage1.goes_on_after([near, {"rollout": "policy"}])


def test_one_sample_is_not_enough_unless_the_others_help(table, prompts):
    with pytest.raises(UserError, match=r"estimator plugin needs 2 samples .* --estimator shrunk"):
        opened(table, prompts, values_samples=1)
    assert opened(table, prompts, values_samples=1, estimator="shrunk")[0].answers(1)
    assert opened(table, prompts, values_samples=2)[0].answers(1)


def test_a_table_without_token_ids_is_refused(table, prompts, monkeypatch):
    manifest = table.manifest | {"imported": {"source": "x", "token_ids": False}}
    monkeypatch.setattr(table, "manifest", manifest)
    with pytest.raises(UserError, match=r"without token ids.*leave it out, or make a table"):
        opened(table, prompts)


def learner_of(policy, **changes):
    config = make_config(lr=1e-2, **changes)
    return Learner(copy.deepcopy(policy), policy, AStarPO(0.5), config, 1.0)


@pytest.mark.parametrize("minibatches", [1, 2])
def test_the_first_update_is_that_of_a_rollout_of_these_samples(policy, minibatches):
    answers = with_values(make_answers(policy), [0.1 * i for i in range(12)])
    kept = [replace(a, completion=replace(a.completion, logprobs=())) for a in answers]
    assert (is_from_stage1(answers), is_from_stage1(kept)) == (False, True)
    sampled, stage1 = (learner_of(policy, minibatches=minibatches) for _ in range(2))
    one = sampled.update(answers, 1.0, Stopwatch())
    other = stage1.update(kept, 1.0, Stopwatch())
    for name in ("loss", "residual", "grad_norm", "entropy"):
        assert other[name] == one[name]
    assert other["kl"] == pytest.approx(0, abs=1e-6)
    for mine, its in zip(
        sampled.policy.model.parameters(), stage1.policy.model.parameters(), strict=True
    ):
        assert torch.equal(mine, its)


def test_drift_and_kl_of_a_policy_that_has_moved(policy, caplog):
    answers = with_values(make_answers(policy), [0.5] * 12)
    kept = [replace(a, completion=replace(a.completion, logprobs=())) for a in answers]
    learner = learner_of(policy, minibatches=1)
    assert learner.update(kept, 1.0, Stopwatch())["stage1_drift"] == pytest.approx(0, abs=1e-5)
    on_policy = copy.deepcopy(learner).update(answers, 1.0, Stopwatch())
    caplog.clear()
    metrics = learner.update(kept, 1.0, Stopwatch())
    assert metrics["loss"] == on_policy["loss"]
    assert metrics["stage1_drift"] >= abs(on_policy["kl"]) > 0.01
    assert metrics["kl"] > 0
    assert metrics["engine_kl"] == 0
    assert "log-probs of a response differ" not in caplog.text
    # Term by term rho ln rho - rho + 1, whose mean under the reference is the KL.
    sequences = [answer.sequence for answer in answers]
    before = learner_of(policy, minibatches=1)
    before.update(kept, 1.0, Stopwatch())
    logprobs = [
        [float(x.sum()) for x in policy_logprobs(each, sequences, 1.0, 8192, ALONE)]
        for each in (before.policy, policy)
    ]
    ratios = [p - r for p, r in zip(*logprobs, strict=True)]
    terms = [math.exp(ratio) * (ratio - 1) + 1 for ratio in ratios]
    assert metrics["kl"] == pytest.approx(sum(terms) / 12, rel=1e-3)
