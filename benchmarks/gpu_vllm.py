"""What `gpu.py` measures of vLLM."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vllm_overhead import bare
from workload import timed

from astarpo.engines.base import Request, Sampling
from astarpo.engines.vllm.engine import VLLMEngine
from astarpo.models.policy import Policy
from astarpo.runtime.memory import device_memory_gib
from astarpo.types import Prompt

Row = dict[str, Any]

_SYNCS = 5


@contextmanager
def opened(policy: Policy, rows: int, context: int) -> Iterator[VLLMEngine]:
    """A vLLM over a policy, beside which it leaves half of the memory."""
    with VLLMEngine(policy, rows, context=context) as engine:
        yield engine


def requests_of(prompts: Sequence[Prompt], samples: int) -> list[Request]:
    """So many completions of each prompt, a seed for each."""
    ids = [prompt.token_ids for prompt in prompts for _ in range(samples)]
    return [Request(token_ids, seed) for seed, token_ids in enumerate(ids)]


def path(policy: Policy, prompts: Sequence[Prompt], length: int) -> Row:
    """Everything that training asks of vLLM, once: sampling, resting, a sync and its probe."""
    width = max(len(prompt.token_ids) for prompt in prompts)
    requests = requests_of(prompts, 1)
    with opened(policy, len(prompts), width + length) as engine:
        seconds = timed(lambda: engine.generate(requests, Sampling(length)))
        with engine.resting():
            asleep = device_memory_gib()
        row = engine.sync(policy)
        engine.generate(requests, Sampling(length))
    return {"s": seconds, **{f"asleep {k}": v for k, v in asleep.items()}, **row}


def rates(policy: Policy, prompts: Sequence[Prompt], samples: int, length: int, rows: int) -> Row:
    """Seconds of the engine and of a bare `LLM.generate` on the same requests, in turns."""
    width = max(len(prompt.token_ids) for prompt in prompts)
    requests = requests_of(prompts, samples)
    with opened(policy, rows, width + length) as engine:
        engine.generate(requests[:rows], Sampling(min(4, length)))  # the first of all is slow
        ours = timed(lambda: engine.generate(requests, Sampling(length)))
        theirs = timed(lambda: bare(engine, requests, [], length))
        return {"s": ours, "bare s": theirs, "of bare": theirs / ours, **device_memory_gib()}


def sync(policy: Policy, context: int) -> Row:
    """Seconds to copy the weights, and how far vLLM's log-probs are from the policy's then."""
    with opened(policy, 8, context) as engine:
        found = [engine.sync(policy) for _ in range(_SYNCS)]
    return {
        "sync s": statistics.median(each["sync_seconds"] for each in found),
        "sync_mean": found[-1]["sync_mean"],
        "sync_max": found[-1]["sync_max"],
    }
