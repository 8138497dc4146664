"""Sums of reasoning-gym, both stages: python examples/reasoning_gym_task.py MODEL OUT."""

import sys
from pathlib import Path

import astarpo

if __name__ == "__main__":
    model, out = sys.argv[1], Path(sys.argv[2])
    # needs: pip install reasoning-gym
    problems = astarpo.load_problems("reasoning_gym:chain_sum", limit=16)
    shared = {"model": model, "problems": problems, "grade_workers": 1, "device": "cpu"}
    limits = {"max_new_tokens": 24, "allow_truncated": True}
    table = astarpo.estimate(**shared, **limits, samples=4, out=out / "values")
    run = astarpo.train(**shared, values=table, steps=2, prompts_per_step=8, out=out / "run")
    print(run)
