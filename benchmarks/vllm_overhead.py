"""Samples a second of the vLLM engine over those of a bare `LLM.generate` on the same requests.

    python benchmarks/vllm_overhead.py [REPEATS]

512 requests of stage 1 (64 sums, 8 samples each, a seed for each) on the shipped policy, in an
environment with vLLM (`make test-vllm` makes one for CPUs). The bare call returns log-probs too.
The two take turns on one vLLM; CPU time of this process, which other work disturbs less.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch

from astarpo.config.base import find_shipped
from astarpo.engines.base import Request, Sampling
from astarpo.engines.vllm.engine import VLLMEngine
from astarpo.models.vocabulary import load_vocabulary
from astarpo.runtime.seeding import derive_seed

PROMPTS, SAMPLES, MAX_NEW_TOKENS = 64, 8, 64


def requests_for(vocabulary) -> list[Request]:
    """Sums of four terms, the samples of each side by side."""
    rng = random.Random(0)
    texts = [
        f"Compute {' + '.join(str(rng.randint(1, 9)) for _ in range(4))}. Answer after ####.\n"
        for _ in range(PROMPTS)
    ]
    ids = [tuple(vocabulary.tokenizer(text)["input_ids"]) for text in texts]
    return [
        Request(ids[i], derive_seed(0, "overhead", i, k))
        for i in range(PROMPTS)
        for k in range(SAMPLES)
    ]


def bare(
    engine: VLLMEngine,
    requests: Sequence[Request],
    stop_ids: Sequence[int],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> int:
    """The tokens that vLLM's own `generate` samples."""
    import vllm

    params = [
        vllm.SamplingParams(
            temperature=1.0, max_tokens=max_new_tokens, seed=request.seed, logprobs=0,
            stop_token_ids=list(stop_ids), detokenize=False,
        )
        for request in requests
    ]  # fmt: skip
    prompts = [vllm.TokensPrompt(prompt_token_ids=list(r.prompt_ids)) for r in requests]
    engine._llm.reset_prefix_cache()
    done = engine._llm.generate(prompts, params, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in done)


def ours(engine: VLLMEngine, requests: Sequence[Request]) -> int:
    """The tokens that the engine samples."""
    done = engine.generate(requests, Sampling(MAX_NEW_TOKENS))
    return sum(len(completion.token_ids) for completion in done)


def main(repeats: int) -> None:
    """Prints the ratio: median [least, most] of the turns."""
    torch.set_num_threads(1)
    vocabulary = load_vocabulary(find_shipped("shipped:sums"))
    requests = requests_for(vocabulary)
    with VLLMEngine(vocabulary, 256, context=128) as engine:
        ways: list[Callable[[], int]] = [
            lambda: ours(engine, requests),
            lambda: bare(engine, requests, sorted(vocabulary.stop_ids)),
        ]
        tokens = [way() for way in ways]  # the first of all is slow
        assert tokens[0] == tokens[1], "the two sample the same"
        ratios = []
        for turn in range(repeats):
            seconds = {}
            for way in (0, 1) if turn % 2 else (1, 0):
                started = time.process_time()
                ways[way]()
                seconds[way] = time.process_time() - started
            ratios.append(seconds[1] / seconds[0])
            print(f"ours {seconds[0]:.2f} s, bare {seconds[1]:.2f} s", flush=True)
    ratios.sort()
    print(
        f"{statistics.median(ratios):.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}] of bare vLLM's rate"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
