from dataclasses import replace

import pytest

from astarpo.models.prompts import fit_prompts, open_prompts
from astarpo.types import UserError
from tests.conftest import digit_problems


def test_long_prompts_are_set_aside_and_none_is_cut(policy, caplog):
    problems = digit_problems(9)
    prompts = fit_prompts(problems, policy.vocabulary, "raw", 10)
    assert [p.problem.id for p in prompts] == [problems[i].id for i in (0, 3, 6)]
    assert all(len(p.token_ids) == 7 for p in prompts)
    with pytest.raises(UserError, match=r"every prompt is longer than .*shortest: 7"):
        fit_prompts(problems, policy.vocabulary, "raw", 3)


def test_an_empty_prompt_is_refused_by_its_problem(policy):
    problem = replace(digit_problems(1)[0], prompt=({"role": "user", "content": ""},))
    with pytest.raises(UserError, match=r"digits/train/0: .* no token"):
        fit_prompts([problem], policy.vocabulary, "raw", 10)


def test_a_response_has_to_fit_the_context_too(policy):
    short = replace(policy.vocabulary, name="short", context=40)
    assert len(open_prompts(digit_problems(1), short, "raw", None, 33)) == 1
    with pytest.raises(UserError, match="context of short, 40 tokens; set max_new_tokens to 33"):
        open_prompts(digit_problems(1), short, "raw", None, 34)
