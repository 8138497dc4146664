"""An own reward on own problems, both stages: python examples/own_reward.py MODEL OUT."""

import sys
from pathlib import Path

import astarpo


def score(prompts, completions, letter, **columns):
    """From 0 to 1: how much of each completion is the letter that its row asks for."""
    return [c.count(x) / max(1, len(c)) for c, x in zip(completions, letter, strict=True)]


if __name__ == "__main__":
    model, out = sys.argv[1], Path(sys.argv[2])
    rows = [{"question": f"Write many {x}: ", "letter": x} for x in "abcdefgh"]
    problems = astarpo.load_problems(rows, prompt_column="question", reward=score)
    shared = {"model": model, "problems": problems, "device": "cpu"}
    limits = {"max_new_tokens": 24, "allow_truncated": True}
    table = astarpo.estimate(**shared, **limits, out=out / "values")
    run = astarpo.train(**shared, values=table, steps=3, prompts_per_step=8, out=out / "run")
    print(run)
