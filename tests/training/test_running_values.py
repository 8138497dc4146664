import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from astarpo.algorithms.running_value import RunningValue
from astarpo.algorithms.spo import SPO
from astarpo.models.logprobs import token_logprobs
from astarpo.models.prompts import fit_prompts
from astarpo.runtime.seeding import weighted_draw
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.inputs import valued_prompts
from astarpo.training.learner import Learner
from astarpo.training.running_values import RunningValues
from astarpo.training.schedule import step_prompts
from astarpo.training.scoring import policy_logprobs
from astarpo.types import Prompt, TrainingStopped, UserError, Verdict
from astarpo.values.table import ValueTable
from tests.conftest import digit_problems
from tests.training.test_learner import ALONE, make_answers, make_config, with_values
from tests.values.test_table import FINGERPRINT, sample

RULE = RunningValue()


def tracked(policy, values):
    answers = with_values(make_answers(policy, len(values)), values)
    return answers, started([answer.prompt for answer in answers])


def started(prompts):
    return RunningValues(RULE, [p.problem.id for p in prompts], [p.value for p in prompts])


def scores(*rows):
    """Stands for a policy whose log-probs of all responses are these, call after call."""
    left = [[torch.tensor(x) for x in row] for row in rows]
    return lambda sequences: left.pop(0)


def test_drift_is_measured_on_the_answer_before(policy):
    answers, running = tracked(policy, [0.5])
    (first,) = answers
    first = replace(first, completion=replace(first.completion, token_ids=(1, 2)))
    answer = replace(first, completion=replace(first.completion, token_ids=(3, 4, 5)))
    asked = []

    def score(sequences):
        asked.append([response for _, response in sequences])
        return [torch.tensor(row) for row in ([[-1.0, -2.0]], [[-1.01, -1.99], [-3.0] * 3])[n]]

    n = 0
    metrics = running.take([first], running.look([first], score))
    assert metrics == {"running_value": 0.5, "running_drift": 0.0, "running_memory": 0.96}
    n = 1
    sighting = running.look([answer], score)
    assert asked == [[(1, 2)], [(1, 2), (3, 4, 5)]]
    assert sighting.drift_B == pytest.approx([0.01])
    assert running.take([answer], sighting)["running_memory"] == pytest.approx(2 ** (-1 / 6))
    # 4, 4 -> .96 * 4 + 1, .96 * 4 -> both by .8909, and one more success (answer 0 is right).
    memory = 2 ** (-0.01 / 0.06)
    a, b = memory * 4.84 + 1, memory * 3.84
    (valued,) = running.valued([first.prompt])
    assert valued.value == pytest.approx(a / (a + b))


def test_a_prompt_answered_twice_in_a_step_forgets_once(policy):
    answers, running = tracked(policy, [0.5])
    (right,) = answers
    wrong = replace(right, verdict=Verdict(0.0, None, "ok"))
    logprobs = [-1.0] * len(right.completion.token_ids)
    running.take([right, wrong], running.look([right, wrong], scores([logprobs, logprobs])))
    assert running.valued([right.prompt])[0].value == pytest.approx((3.84 + 1) / (7.68 + 2))


def test_a_reward_that_is_no_success_stops_before_the_update(policy):
    answers, running = tracked(policy, [0.5])
    bad = replace(answers[0], verdict=Verdict(-1.0, None, "ok"))
    with pytest.raises(TrainingStopped, match=r"from 0 .* to 1 .* one is -1: give another"):
        running.look([bad], scores([]))


def test_what_is_saved_goes_on_alike(policy, tmp_path):
    answers, running = tracked(policy, [0.2, 0.5, 0.9])
    prompts = [answer.prompt for answer in answers]
    empty = started(prompts)
    empty.save(tmp_path / "none.safetensors")
    empty.restore(tmp_path / "none.safetensors")
    assert [p.value for p in empty.valued(prompts)] == pytest.approx([0.2, 0.5, 0.9])

    def score(sequences, shift=0.0):
        return [torch.arange(len(r)) * -0.1 - shift for _, r in sequences]

    running.take(answers[1:], running.look(answers[1:], score))
    running.save(tmp_path / "some.safetensors")
    again = started(prompts)
    again.restore(tmp_path / "some.safetensors")
    sightings = [
        each.look(answers, lambda sequences: score(sequences, 0.02)) for each in (running, again)
    ]
    assert sightings[0].drift_B == sightings[1].drift_B == pytest.approx([0, 0.02, 0.02], rel=1e-4)
    for each, sighting in zip((running, again), sightings, strict=True):
        each.take(answers, sighting)
    assert (running.weights_P == again.weights_P).all()
    with pytest.raises(UserError, match="values of 3 prompts, and there are 1 now"):
        started(prompts[:1]).restore(tmp_path / "some.safetensors")


def test_log_probs_are_the_policy_s_however_they_are_batched(policy):
    answers = make_answers(policy, 5)
    sequences = [answer.sequence for answer in answers]
    alone = [policy_logprobs(policy, [each], 0.7, 10_000, ALONE)[0] for each in sequences]
    for together in (policy_logprobs(policy, sequences, 0.7, n, ALONE) for n in (1, 100, 10_000)):
        for one, other in zip(alone, together, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    expected, _ = token_logprobs(policy.model, policy.collate(sequences[:1]), 0.7)
    assert torch.allclose(alone[0], expected[0].detach(), atol=1e-5)


def test_the_learner_measures_the_drift_of_real_updates(policy):
    answers, running = tracked(policy, [0.5] * 6)
    mine = copy.deepcopy(policy)
    config = make_config(algorithm="spo", lr=1e-2, minibatches=1)
    learner = Learner(mine, policy, SPO(0.2, 0.28), config, 1.0, running=running)
    before = policy_logprobs(mine, [a.sequence for a in answers], 1.0, 8192, ALONE)
    assert learner.update(answers, 1.0, Stopwatch())["running_drift"] == 0.0
    after = policy_logprobs(mine, [a.sequence for a in answers], 1.0, 8192, ALONE)
    drift = np.mean([(a - b).abs().mean() for a, b in zip(after, before, strict=True)])
    assert drift > 1e-3
    metrics = learner.update(answers, 1.0, Stopwatch())
    assert metrics["running_drift"] == pytest.approx(drift, rel=1e-3)


def test_a_table_of_other_rewards_is_refused(tmp_path, policy):
    problems = digit_problems(2)
    prompts = fit_prompts(problems, policy.vocabulary, "raw", 99)
    table = ValueTable.start(tmp_path / "t", FINGERPRINT, {})
    table.append([sample(problem, n, 1.0 - n) for problem in problems for n in range(3)])
    table.set_facts(samples=3)
    config = make_config(algorithm="spo")
    with pytest.raises(UserError, match=r"from 0 .* one is -1: give another --algorithm"):
        valued_prompts(prompts, table, config, RULE)
    first_two = make_config(algorithm="spo", values_samples=2)
    assert [p.value for p in valued_prompts(prompts, table, first_two, RULE)] == [0.5, 0.5]
    ours = make_config(algorithm="astar_po")
    assert len(valued_prompts(prompts, table, ours)) == 2


def test_prompts_are_drawn_by_their_weights():
    weights = [0.05, 0.55, 0.55, 0.05, 0.55]
    assert sorted(weighted_draw(3, weights, 5)) == [0, 1, 2, 3, 4]
    assert weighted_draw(3, weights, 2) == weighted_draw(3, weights, 2)
    assert len(set(weighted_draw(3, weights, 50))) <= 5
    firsts = [weighted_draw(seed, weights, 1)[0] for seed in range(4000)]
    shares = np.bincount(firsts, minlength=5) / 4000
    expected = np.array(weights) / sum(weights)
    assert (abs(shares - expected) < 4 * np.sqrt(expected / 4000)).all()

    prompts = [Prompt(problem, (1,)) for problem in digit_problems(5)]
    config = make_config(prompts_per_step=2)
    algorithm = SPO(0.2, 0.28)
    chosen, seeds = step_prompts(prompts, algorithm, config, 3, weights)
    assert (chosen, seeds) == step_prompts(prompts, algorithm, config, 3, weights)
    others = [step_prompts(prompts, algorithm, config, step, weights)[0] for step in range(4, 14)]
    assert any(other != chosen for other in others)
    assert len({p.problem.id for p in chosen}) == 2
