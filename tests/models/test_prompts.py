from dataclasses import replace

import numpy as np
import pytest

from astarpo.models.prompts import fit_prompts, open_prompts
from astarpo.models.vocabulary import Vocabulary
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import Prompt, UserError
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


@pytest.mark.parametrize("prompt_format", ["raw", "chat"])
def test_prompts_rendered_when_asked_for_are_those_rendered_at_once(
    policy, prompt_format, tmp_path
):
    vocabulary, problems = policy.vocabulary, digit_problems(40)
    write_problems(tmp_path / "p.parquet", problems)
    eager = [Prompt(p, tuple(vocabulary.render(p, prompt_format))) for p in problems]
    limit = sorted(len(prompt.token_ids) for prompt in eager)[30]
    eager = [prompt for prompt in eager if len(prompt.token_ids) <= limit]
    for given in (problems, read_problems(tmp_path / "p.parquet")):
        lazy = fit_prompts(given, vocabulary, prompt_format, limit)
        assert list(lazy) == eager
        assert [lazy[i] for i in range(len(lazy))] == eager
        assert lazy[-1] == eager[-1]
        assert list(lazy[3:20:4]) == eager[3:20:4]
        assert lazy.lengths_P.tolist() == [len(prompt.token_ids) for prompt in eager]
        assert lazy.longest == limit
        valued = replace(lazy, values_P=np.arange(len(lazy)) / 4).take([5, 2])
        assert list(valued) == [replace(eager[5], value=1.25), replace(eager[2], value=0.5)]


def test_prompts_whose_length_is_known_are_not_tokenised(policy):
    problems, asked = digit_problems(9), []

    class Counting(Vocabulary):
        def render_all(self, problems, prompt_format):
            asked.extend(problem.id for problem in problems)
            return super().render_all(problems, prompt_format)

    vocabulary = Counting(**vars(policy.vocabulary))
    whole = fit_prompts(problems, policy.vocabulary, "raw", 99)
    known_P = whole.lengths_P.copy()
    known_P[4] = 0
    prompts = fit_prompts(problems, vocabulary, "raw", 99, known_P)
    assert asked == [problems[4].id]
    assert prompts.lengths_P.tolist() == whole.lengths_P.tolist()
    assert prompts[2] == whole[2]
    assert asked == [problems[4].id, problems[2].id]
