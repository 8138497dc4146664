"""The part `generation` of `h100.py`: tokens a second, ours and `generate`'s."""

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from bench import Bench, Row
from torch import Tensor, nn
from workload import Shape, frozen_copy, make_prompts, random_policy, sample, timed

from astarpo.engines import hf
from astarpo.engines.decoding import Plan
from astarpo.policy import Policy
from astarpo.types import Prompt

# For `generate` to get beyond its first step of decoding, which may compile.
_WARMUP_SECONDS = 2.0


def generation(bench: Bench) -> None:
    """Both stages of both models; then responses that end by chance, and a static cache."""
    sizes = bench.sizes
    for shape in (sizes.large, sizes.small):
        policy = random_policy(shape, bench.device)
        reference = frozen_copy(policy)
        plain = deepcopy(reference.model).to(torch.bfloat16)
        shared = make_prompts(sizes.prompts // 8, sizes.prompt, shape.vocabulary)
        single = make_prompts(sizes.prompts, sizes.prompt, shape.vocabulary)
        name = f"{shape.name}, {len(single)} x 1"
        ours = bench.attempt(f"{name}, ours", _ours, bench, shape, policy, single, 1)
        bench.attempt(f"{name}, ours stepwise", _stepwise, bench, shape, policy, single)
        theirs = bench.attempt(f"{name}, generate", _generate, bench, shape, plain, single)
        _compare(bench, name, ours, theirs)
        bench.attempt(
            f"{shape.name}, {len(shared)} x 8, ours", _ours, bench, shape, reference, shared, 8
        )
    static = {"cache_implementation": "static"}
    bench.attempt(f"{name}, static cache", _generate, bench, shape, plain, single, **static)
    _with_stops(bench, reference, plain, single)


def _ours(bench: Bench, shape: Shape, policy: Policy, prompts: list[Prompt], samples: int) -> Row:
    sizes = bench.sizes
    with policy.autocast():
        ids = [prompt.token_ids for prompt in prompts]
        way = hf.make_plan(policy, ids, sizes.response, own_loop=True).ways[0]
    sample(policy, prompts[:2], samples, 4, sizes.prompts)
    bench.free()
    seconds = timed(lambda: sample(policy, prompts, samples, sizes.response, sizes.prompts))
    rows = len(prompts) * samples
    return _rates(bench, shape, len(prompts), rows, sizes.response, seconds) | {"way": way}


def _stepwise(bench: Bench, shape: Shape, policy: Policy, prompts: list[Prompt]) -> Row:
    """Without a CUDA graph, by plain products."""
    with patch.object(hf, "make_plan", return_value=Plan("stepwise", ["stepwise"])):
        return _ours(bench, shape, policy, prompts, 1)


def _generate(
    bench: Bench, shape: Shape, model: nn.Module, prompts: list[Prompt], **settings: Any
) -> Row:
    """Up to its limit of time, beyond which tokens are dearer than the mean."""
    _call(bench, model, prompts, _WARMUP_SECONDS, **settings)
    bench.free()
    made: list[Tensor] = []
    seconds = timed(
        lambda: made.append(_call(bench, model, prompts, bench.sizes.generate_seconds, **settings)),
    )
    length = made[0].shape[1]
    return _rates(bench, shape, len(prompts), len(prompts), length, seconds) | {"way": "generate"}


@torch.no_grad()
def _call(
    bench: Bench, model: Any, prompts: list[Prompt], max_time: float, **settings: Any
) -> Tensor:
    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=bench.device)
    both = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        max_new_tokens=bench.sizes.response,
        max_time=max_time,
        pad_token_id=0,
        **settings,
    )
    return both[:, ids.shape[1] :]


def _rates(
    bench: Bench, shape: Shape, num_prompts: int, rows: int, length: int, seconds: float
) -> Row:
    held = num_prompts * bench.sizes.prompt + rows * length / 2  # tokens, on average
    cached = held * shape.layers * 2 * shape.kv_heads * shape.head_size * 2
    read = 2 * (shape.body + shape.head) + cached
    rate = rows * length / seconds
    return {
        "tokens/s": rate,
        "ms/token": 1e3 * seconds / length,
        "of limit": rate * read / (rows * bench.bandwidth),
        "of copy's": rate * read / (rows * bench.measured_bandwidth),
        "length": length,
        "GiB": bench.peak_gib(),
        "reserved": bench.reserved_gib(),
    }


def _with_stops(bench: Bench, policy: Policy, plain: nn.Module, prompts: list[Prompt]) -> None:
    """Ours drops the rows that have ended, `generate` goes on with all until the last has."""
    mean = bench.sizes.mean_response
    for model in (policy.model, plain):
        _stop_by_chance(model, 1 / mean)
    stopping = replace(policy, stop_ids=frozenset({0}))
    limit = bench.sizes.response

    def ours() -> Row:
        done: list[Any] = []
        seconds = timed(
            lambda: done.extend(sample(stopping, prompts, 1, limit, bench.sizes.prompts)),
        )
        return {"tokens/s": sum(len(each.token_ids) for each in done) / seconds}

    def theirs() -> Row:
        made: list[Tensor] = []
        longest = 3 * bench.sizes.generate_seconds
        seconds = timed(
            lambda: made.append(_call(bench, plain, prompts, longest, eos_token_id=0)),
        )
        going = (made[0] == 0).int().cumsum(dim=-1) == 0
        lengths = (going.sum(dim=-1) + 1).clamp(max=going.shape[1])
        return {"tokens/s": float(lengths.sum()) / seconds}

    name = f"{bench.sizes.small.name}, mean {mean}"
    row = bench.attempt(f"{name}, ours", ours)
    _compare(bench, name, row, bench.attempt(f"{name}, generate", theirs))


def _stop_by_chance(model: Any, rate: float) -> None:
    """Gives token 0 this probability everywhere: a logit of its own, whatever the context."""
    head = model.get_output_embeddings()
    # The other logits are normal, being of random weights: their variance gives the normaliser.
    variance = head.in_features * model.config.initializer_range**2
    logit = math.log(rate / (1 - rate)) + math.log(head.out_features) + variance / 2
    bias = torch.zeros(head.out_features, dtype=head.weight.dtype, device=head.weight.device)
    bias[0] = logit
    head.bias = nn.Parameter(bias, requires_grad=False)
    with torch.no_grad():
        head.weight[0] = 0


def _compare(bench: Bench, name: str, ours: Row, theirs: Row) -> None:
    if ours and theirs:
        times = ours["tokens/s"] / theirs["tokens/s"]
        bench.row(f"{name}, ours over generate", {"times": times})
