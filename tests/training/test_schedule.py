import pytest

from astarpo.algorithms.grpo import GRPO
from astarpo.training.schedule import lr_scale, split, step_prompts
from astarpo.types import Prompt
from tests.conftest import digit_problems
from tests.training.test_learner import make_config


def test_lr_scale():
    config = make_config(warmup_steps=4, schedule="linear")
    rates = [lr_scale(step, 12, config) for step in range(1, 13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[-1] == pytest.approx(1 / 8)
    constant = make_config()
    assert [lr_scale(s, 3, constant) for s in (1, 2, 3)] == [1.0, 1.0, 1.0]
    cosine = make_config(schedule="cosine")
    assert lr_scale(6, 10, cosine) == pytest.approx(0.5)


def test_split():
    assert [list(part) for part in split(5, 2)] == [[0, 1], [2, 3, 4]]
    assert split(2, 8) == [range(0, 1), range(1, 2)]


def test_prompts_of_a_step_follow_from_seed_and_step():
    prompts = [Prompt(problem, (1,)) for problem in digit_problems(5)]
    algorithm = GRPO(group_size=2, clip=0.2, kl_coef=0.0, std_normalize=True, length_scale=None)
    config = make_config(prompts_per_step=5)
    chosen, seeds = step_prompts(prompts, algorithm, config, 3)
    assert (chosen, seeds) == step_prompts(prompts, algorithm, config, 3)
    assert chosen[::2] == chosen[1::2]  # the samples of a prompt side by side
    assert sorted(p.problem.id for p in chosen[::2]) == sorted(p.problem.id for p in prompts)
    assert len(set(seeds)) == 10
    others = step_prompts(prompts, algorithm, config, 4)
    assert not set(seeds) & set(others[1])
