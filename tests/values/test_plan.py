"""Plans: which samples stand in which shard, whatever is there and whoever asks."""

from dataclasses import replace

import numpy as np

from astarpo.models.prompts import Prompts
from astarpo.stages.warm_start import build_policy
from astarpo.types import Problem
from astarpo.values.plan import Plans
from astarpo.values.shards import shard_name
from tests.conftest import digit_problems

VOCABULARY = build_policy(hidden_size=8, layers=1, heads=1, seed=0).vocabulary


def prompts_of(problems: list[Problem], lengths: list[int]) -> Prompts:
    return Prompts(problems, VOCABULARY, "raw", np.array(lengths))


PROMPTS = prompts_of(digit_problems(5), [3, 1, 2, 1, 9])


def layout(plans: Plans) -> list[list[tuple[int, list[int]]]]:
    return [
        [(p, list(n)) for p, n in zip(shard.places.tolist(), shard.numbers, strict=True)]
        for shard in plans.shards
    ]


def test_prompts_of_like_length_go_together():
    plans = Plans(PROMPTS, [])
    assert plans.add(np.full(5, 2), 2)
    assert layout(plans) == [
        [(1, [0, 1]), (3, [0, 1])], [(2, [0, 1]), (0, [0, 1])], [(4, [0, 1])],
    ]  # fmt: skip
    assert [shard.number for shard in plans.shards] == [0, 1, 2]
    ids = [PROMPTS.problems[p].id for p in (1, 1, 3, 3)]
    assert plans.shards[0].name == shard_name(ids, [0, 1, 0, 1])
    assert [len(shard) for shard in plans.shards] == [4, 4, 2]
    assert not plans.add(np.full(5, 2), 2)


def test_a_plan_is_what_those_before_it_lack():
    """Here with more samples, and with problems that were not there before."""
    first = Plans(PROMPTS[:3], [])
    first.add(np.full(3, 1), 2)
    grown = Plans(PROMPTS, first.entries)
    grown.add(np.full(5, 2), 3)
    assert layout(grown) == [
        [(1, [0]), (2, [0])], [(0, [0])],
        [(1, [1]), (3, [0, 1]), (2, [1])], [(0, [1]), (4, [0, 1])],
    ]  # fmt: skip
    again = Plans(PROMPTS, grown.entries)
    assert layout(again) == layout(grown)
    assert [s.name for s in again.shards] == [s.name for s in grown.shards]


def test_rounds_are_plans():
    first, second = np.full(5, 1), np.array([1, 3, 1, 1, 2])
    plans = Plans(PROMPTS, [])
    plans.add(first, 2)
    plans.add(second, 2)
    assert layout(plans)[3:] == [[(1, [1, 2]), (4, [1])]]
    assert plans.entries[1]["max_samples"] == 3
    again = Plans(PROMPTS, plans.entries)
    assert len(again.shards) == 3  # The second follows from samples, and is not known yet.
    assert not again.add(second, 2)
    assert layout(again) == layout(plans)
    other = Plans(PROMPTS, plans.entries)
    assert other.add(np.array([1, 1, 1, 3, 2]), 2)


def test_another_problem_of_the_same_id_is_another_plan():
    plans = Plans(PROMPTS, [])
    plans.add(np.full(5, 1), 2)
    changed = replace(digit_problems(5)[4], ground_truth="another")
    other = Plans(prompts_of([*digit_problems(4), changed], [3, 1, 2, 1, 9]), plans.entries)
    assert other.shards == []
    assert other.add(np.full(5, 1), 2)


def test_every_sample_is_in_one_part():
    plans = Plans(PROMPTS, [])
    plans.add(np.full(5, 3), 1)
    parts = [[s for s in plans.shards if s.number % 2 == part] for part in range(2)]
    samples = [(p.problem.id, n) for part in parts for shard in part for p, n in shard.samples()]
    assert len(samples) == len(set(samples)) == 15
    assert all(part for part in parts)


def test_a_shard_alone_has_the_same_samples():
    plans = Plans(PROMPTS, [])
    plans.add(np.array([1, 3, 2, 1, 2]), 2)
    for shard in plans.shards:
        assert shard.alone().samples() == shard.samples()
        assert len(shard.alone().prompts) == len(shard.places)
