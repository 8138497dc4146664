"""What vLLM is asked for one completion, and what it answers."""

from collections.abc import Sequence
from typing import Any

from astarpo.engines.base import Sampling
from astarpo.types import Completion

_SEEDS = 2**63
"""Seeds that vLLM has room for: its runner for GPUs keeps them as signed numbers of 64 bits."""


def sampling_params(vllm: Any, seed: int, sampling: Sampling, stop_ids: Sequence[int]) -> Any:
    """The settings of one completion, for vLLM.

    Args:
        vllm: The library.
        seed: Of this completion alone.
        sampling: The distribution.
        stop_ids: All that end a response.
    """
    return vllm.SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_new_tokens,
        seed=seed % _SEEDS,
        logprobs=0,  # of the token that is drawn, and of no other
        flat_logprobs=True,
        stop_token_ids=stop_ids,
        ignore_eos=True,  # the stop ids above are all that there are
        detokenize=False,
        output_kind=vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
    )


def completion_of(output: Any) -> Completion:
    """An answer of vLLM as a completion."""
    (sample,) = output.outputs
    if sample.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"a response ended by {sample.finish_reason}")
    return Completion(
        tuple(sample.token_ids), tuple(sample.logprobs.logprobs), sample.finish_reason
    )
