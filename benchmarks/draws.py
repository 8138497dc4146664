"""How fast tokens are drawn from logits, against adding up the whole cumulative distribution.

    python benchmarks/draws.py [REPEATS]

One thread, the clock; both take turns, and a ratio is that of one turn.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from generation import ratio
from torch import Tensor

from astarpo.engines.base import Sampling
from astarpo.engines.tokens import choose_tokens

SIZES = {"128 rows of 258": (128, 258), "128 rows of 151,936": (128, 151_936)}


def in_order(logits_BV: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """The same draw by the cumulative distribution over all tokens."""
    logprobs_BV = logits_BV.float().log_softmax(dim=-1)
    upto_BV = logprobs_BV.exp().cumsum(dim=-1)
    threshold_B1 = uniform_B[:, None] * upto_BV[:, -1:]
    token_B1 = torch.searchsorted(upto_BV, threshold_B1, right=True)
    return token_B1.squeeze(-1), logprobs_BV.gather(-1, token_B1).squeeze(-1)


def seconds(draw: Callable[[], tuple[Tensor, Tensor]], times: int) -> float:
    """Of one draw, the mean of several."""
    started = time.perf_counter()
    for _ in range(times):
        draw()
    return (time.perf_counter() - started) / times


def main(repeats: int) -> None:
    """Prints a line for each size."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    print(f"{'':24}{'ours, ms':>10}{'in order, ms':>14}{'times':>22}")
    for name, (rows, vocabulary) in SIZES.items():
        logits_BV = 3 * torch.randn(rows, vocabulary, generator=generator)
        uniform_B = torch.rand(rows, generator=generator)
        draws = (
            lambda x=logits_BV, u=uniform_B: choose_tokens(x, u, Sampling(1)),
            lambda x=logits_BV, u=uniform_B: in_order(x, u),
        )
        times = max(1, 2_000_000 // logits_BV.numel())
        turns = [[seconds(draw, times) for draw in draws] for _ in range(repeats + 1)][1:]
        ours, theirs = zip(*turns, strict=True)
        medians = [1e3 * statistics.median(each) for each in (ours, theirs)]
        print(f"{name:24}{medians[0]:10.2f}{medians[1]:14.2f}{ratio(theirs, ours):>22}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
