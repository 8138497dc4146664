"""An own reward on own problems, both stages: python examples/own_reward.py MODEL OUT."""

import json
import sys
from pathlib import Path

import astarpo
from astarpo.config import DataConfig, EstimateConfig, TrainConfig


def score(prompts, completions, letter, **columns):
    """From 0 to 1: how much of each completion is the letter that its row of the file asks for."""
    return [c.count(x) / max(1, len(c)) for c, x in zip(completions, letter, strict=True)]


if __name__ == "__main__":
    model, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"Write many {x}: ", "letter": x} for x in "abcdefgh"]
    source, problems = out / "mine.jsonl", out / "problems.parquet"
    source.write_text("\n".join(map(json.dumps, rows)))
    own = {"task": "own", "source": str(source), "prompt_column": "question"}
    astarpo.data(DataConfig(**own, reward=f"{__file__}:score", out=problems))
    shared = {"model": model, "problems": problems, "trust_reward": f"{__file__}:score"}
    limits = {"max_new_tokens": 24, "allow_truncated": True}
    astarpo.estimate(EstimateConfig(**shared, **limits, out=out / "values"))
    steps = {"steps": 3, "prompts_per_step": 8}
    print(astarpo.train(TrainConfig(**shared, **steps, values=out / "values", out=out / "run")))
