"""How fast the engine samples, against `generate` and with transformers' own cache and attention.

    python benchmarks/generation.py [REPEATS]

On the shipped policy, one thread, CPU time (other work on the machine disturbs it less than the
clock). The three take turns, so that what slows the machine slows all; a ratio is that of one turn.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from unittest.mock import patch

import torch

from astarpo.engines import hf
from astarpo.engines.base import Request, Sampling
from astarpo.engines.decoding import Plan
from astarpo.models.policy import Policy, load_policy
from astarpo.tasks.arithmetic import Arithmetic

MAX_NEW_TOKENS = 64
MAX_SEQUENCES = 256
LONG = 330


def sums(policy: Policy, count: int, samples: int) -> list[Request]:
    """The demo's prompts, about 40 tokens."""
    rng = random.Random(0)
    questions = [Arithmetic().draft(rng, 4).question for _ in range(count // samples)]
    prompts = [tuple(policy.vocabulary.tokenizer(question)["input_ids"]) for question in questions]
    return [Request(p, i * samples + k) for i, p in enumerate(prompts) for k in range(samples)]


def long_prompts(shortest: int, count: int, samples: int) -> list[Request]:
    """Prompts of random bytes; what follows has no end."""
    rng = random.Random(0)
    widths = [rng.randint(shortest, LONG) for _ in range(count // samples)]
    prompts = [tuple(rng.randrange(32, 120) for _ in range(width)) for width in widths]
    return [Request(p, i * samples + k) for i, p in enumerate(prompts) for k in range(samples)]


def ours(policy: Policy, requests: list[Request]) -> int:
    """Tokens that the engine sampled."""
    done = hf.HFEngine(policy, MAX_SEQUENCES).generate(requests, Sampling(MAX_NEW_TOKENS))
    return sum(len(c.token_ids) for c in done)


def ours_with_their_cache(policy: Policy, requests: list[Request]) -> int:
    """Tokens that the engine sampled as it does where a model's prompts cannot be shared."""
    with patch.object(hf, "make_plan", return_value=Plan("cached", ["cached"])):
        return ours(policy, requests)


@torch.no_grad()
def theirs(policy: Policy, requests: list[Request]) -> int:
    """Tokens that `generate` sampled, stop ids included; it gives no log-probs."""
    by_length = sorted(requests, key=lambda request: len(request.prompt_ids))
    stop_ids, pad_id = torch.tensor(sorted(policy.vocabulary.stop_ids)), policy.vocabulary.pad_id
    num_tokens = 0
    for start in range(0, len(requests), MAX_SEQUENCES):
        prompts = [r.prompt_ids for r in by_length[start : start + MAX_SEQUENCES]]
        width = max(map(len, prompts))
        ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts])
        lengths_B = torch.tensor([len(p) for p in prompts])
        new_BT = policy.model.generate(
            ids,
            attention_mask=(torch.arange(width) >= (width - lengths_B)[:, None]).long(),
            do_sample=True,
            top_k=0,
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=stop_ids.tolist(),
            pad_token_id=pad_id,
        )[:, width:]
        before_stop_BT = torch.isin(new_BT, stop_ids).int().cumsum(dim=-1) == 0
        num_tokens += int((before_stop_BT.sum(dim=-1) + 1).clamp(max=new_BT.shape[1]).sum())
    return num_tokens


def main(repeats: int) -> None:
    """Prints a line for each workload."""
    torch.set_num_threads(1)
    folder = resources.files("astarpo") / "assets" / "sums"
    policy = load_policy(str(folder), torch.device("cpu"))
    vocabulary = policy.vocabulary
    never = replace(vocabulary, stop_ids=frozenset({vocabulary.pad_id}))
    endless = replace(policy, vocabulary=never)
    workloads = {
        "512 sums": (policy, sums(policy, 512, 1)),
        "512 sums, 8 samples each": (policy, sums(policy, 512, 8)),
        "128 of 330 tokens": (endless, long_prompts(LONG, 128, 1)),
        "128 of 250 to 330 tokens": (endless, long_prompts(250, 128, 1)),
        "256 of 330, 8 samples each": (endless, long_prompts(LONG, 256, 8)),
    }
    rows: list[Callable[[Policy, list[Request]], int]] = [ours, ours_with_their_cache, theirs]
    print(f"{'':28}{'tokens/s':>9}  {'over their cache':>20}  {'over generate':>20}")
    for name, (model, requests) in workloads.items():
        ours(model, requests[:16])
        rates: list[list[float]] = [[], [], []]
        for _ in range(repeats):
            for row, sample in enumerate(rows):
                started = time.process_time()
                num_tokens = sample(model, requests)
                rates[row].append(num_tokens / (time.process_time() - started))
        print(
            f"{name:28}{statistics.median(rates[0]):9.0f}  "
            f"{ratio(rates[0], rates[1]):>20}  {ratio(rates[0], rates[2]):>20}",
            flush=True,
        )


def ratio(first: Sequence[float], second: Sequence[float]) -> str:
    """Of the two within each turn: median [least, most]."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
