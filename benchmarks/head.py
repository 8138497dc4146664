"""Memory and time of an update's log-probs and gradient, in chunks and from whole logits.

    python benchmarks/head.py [REPEATS]

One thread; each way in a process of its own, for its peak of memory, in turns.
"""

import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from astarpo.models.batch import TokenBatch, collate, masked_sum
from astarpo.models.logprobs import token_logprobs
from astarpo.runtime.memory import peak_resident_bytes
from astarpo.stages.warm_start import build_policy

# name -> hidden size, layers, vocabulary, sequences of 128 prompt and 256 response tokens
SHAPES = {
    "vocabulary 150000, 4096 tokens": (64, 2, 150_000, 16),
    "the demo's policy, 4096 tokens": (128, 2, 258, 16),
}
PROMPT, RESPONSE = 128, 256


def whole(model: Any, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropies as before: all logits at once, entropies row by row."""
    width = batch.response_ids_BT.shape[1]
    logits_BTV = model(
        input_ids=batch.input_ids_BS,
        attention_mask=batch.attention_mask_BS,
        position_ids=batch.position_ids_BS,
        use_cache=False,
        logits_to_keep=width + 1,
    ).logits[:, -width - 1 : -1]
    logits_BTV = logits_BTV.float() / 1.0
    normalizer_BT = logits_BTV.logsumexp(dim=-1)
    chosen_BT = logits_BTV.gather(-1, batch.response_ids_BT[..., None]).squeeze(-1)
    with torch.no_grad():
        pairs = zip(logits_BTV, normalizer_BT, strict=True)
        entropies = [norm - (rows.softmax(-1) * rows).sum(-1) for rows, norm in pairs]
    return chosen_BT - normalizer_BT, torch.stack(entropies)


def chunked(model: Any, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """As the learner does."""
    logprobs_BT, entropy_BT = token_logprobs(model, batch, 1.0, entropy=True)
    assert entropy_BT is not None
    return logprobs_BT, entropy_BT


WAYS = {"whole": whole, "chunked": chunked}


def measure(shape: str, way: str) -> dict[str, float]:
    """GiB above what the process held before, and CPU seconds of forward and backward."""
    torch.set_num_threads(1)
    hidden, layers, vocabulary, rows = SHAPES[shape]
    policy = build_policy(hidden, layers, 2, seed=0)
    policy.model.resize_token_embeddings(vocabulary, mean_resizing=False)
    ids = torch.randint(vocabulary, (rows, PROMPT + RESPONSE)).tolist()
    batch = collate([r[:PROMPT] for r in ids], [r[PROMPT:] for r in ids], 0, policy.device)
    small = collate([[1]], [[2]], 0, policy.device)
    masked_sum(WAYS[way](policy.model, small)[0], small.mask_BT).sum().backward()
    before = peak_resident_bytes()
    seconds = []
    for _ in range(1 if vocabulary > 10_000 else 7):
        started = time.process_time()
        logprobs_BT, _ = WAYS[way](policy.model, batch)
        masked_sum(logprobs_BT, batch.mask_BT).sum().backward()
        seconds.append(time.process_time() - started)
    after = peak_resident_bytes()
    return {"gib": (after - before) / 2**30, "seconds": statistics.median(seconds)}


def main(repeats: int) -> None:
    """Prints a line for each shape."""
    for shape in SHAPES:
        turns = []
        for _ in range(repeats):
            turn = {}
            for way in WAYS:
                command = [sys.executable, __file__, shape, way]
                turn[way] = json.loads(subprocess.check_output(command, text=True))
            turns.append(turn)
        peaks = {way: statistics.median(t[way]["gib"] for t in turns) for way in WAYS}
        ratios = sorted(t["whole"]["seconds"] / t["chunked"]["seconds"] for t in turns)
        print(
            f"{shape}: whole {peaks['whole']:.2f} GiB, chunked {peaks['chunked']:.2f} GiB; chunked "
            f"is {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] times as fast",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(measure(sys.argv[1], sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
