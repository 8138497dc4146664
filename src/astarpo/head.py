"""Log-probs of chosen tokens from hidden states, never holding the logits of more than a chunk.

A micro-batch of 16k tokens over a vocabulary of 150k is 10 GB of logits, and their gradient as much
again. Here the output layer takes a chunk of tokens at a time and computes its logits anew in the
backward pass.

Shapes: _N tokens, _H hidden size, _V vocabulary.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# 512 MB of fp32. Smaller chunks add up the weight's gradient more often.
MAX_LOGITS = 1 << 27

_plain: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def is_plain(model: Any) -> bool:
    """Whether a model's logits are its output layer over its decoder's last hidden states.

    Some models cap or scale them besides. One forward pass over one token tells, for good.
    """
    if model not in _plain:
        _plain[model] = _try_out(model)
        torch.clear_autocast_cache()  # of casts that carry no gradient
    return _plain[model]


def score_hidden(
    head: nn.Linear, hidden_NH: Tensor, ids_N: Tensor, temperature: float, *, entropy: bool
) -> tuple[Tensor, Tensor]:
    """Scores tokens chunk by chunk; see `score`.

    Args:
        head: The output layer.
        hidden_NH: [N, H] what it is applied to.
        ids_N: [N] the tokens.
        temperature: Divides the logits.
        entropy: Whether to compute the entropies.
    """
    chunk = max(1, MAX_LOGITS // head.out_features)

    def score_chunk(part_NH: Tensor, part_N: Tensor) -> tuple[Tensor, Tensor]:
        return score(head(part_NH), part_N, temperature, entropy=entropy)

    parts = list(zip(hidden_NH.split(chunk), ids_N.split(chunk), strict=True))
    if len(parts) == 1 or not torch.is_grad_enabled():
        scored = [score_chunk(*part) for part in parts]
    else:
        scored = [
            checkpoint(score_chunk, *part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    logprobs, entropies = zip(*scored, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def score(
    logits_NV: Tensor, ids_N: Tensor, temperature: float, *, entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probs of tokens and entropies of their distributions, in nats.

    Returns:
        [N] log-probs and [N] entropies, which carry no gradient and are 0 unless asked for.
    """
    logprobs_N, logprobs_NV = _Choose.apply(logits_NV, ids_N, temperature)
    entropy_N = torch.zeros_like(logprobs_N)
    if entropy:  # last: recomputing a chunk ends when all that a gradient needs is there again
        with torch.no_grad():
            entropy_N = -logprobs_NV.exp().mul_(logprobs_NV).sum(dim=-1)
    return logprobs_N, entropy_N


class _Choose(torch.autograd.Function):
    """Log-probs of the tokens, and of all; autograd's own would hold two more [N, V]."""

    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, ids_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        scaled_NV = logits_NV if temperature == 1.0 else logits_NV / temperature
        logprobs_NV = scaled_NV.log_softmax(dim=-1, dtype=torch.float32)
        ctx.save_for_backward(logprobs_NV, ids_N)
        ctx.mark_non_differentiable(logprobs_NV)
        ctx.set_materialize_grads(False)  # it would be zeros for all
        ctx.temperature, ctx.dtype = temperature, logits_NV.dtype
        return logprobs_NV.gather(-1, ids_N[:, None]).squeeze(-1), logprobs_NV

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logprobs_NV, ids_N = ctx.saved_tensors
        grad_N1 = grads[0][:, None] / ctx.temperature
        grad_NV = logprobs_NV.exp_().mul_(-grad_N1).scatter_add_(-1, ids_N[:, None], grad_N1)
        return grad_NV.to(ctx.dtype), None, None


@torch.no_grad()
def _try_out(model: Any) -> bool:
    head, decoder = model.get_output_embeddings(), model.get_decoder()
    if not isinstance(head, nn.Linear) or decoder is None or decoder is model:
        return False
    seen: dict[str, Tensor] = {}

    def at_decoder(_module: nn.Module, _args: Any, output: Any) -> None:
        seen["hidden"] = output[0]

    def at_head(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen["input"], seen["logits"] = args[0], output.clone()

    hooks = [decoder.register_forward_hook(at_decoder), head.register_forward_hook(at_head)]
    try:
        ids = torch.zeros((1, 1), dtype=torch.long, device=head.weight.device)
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if seen.keys() != {"hidden", "input", "logits"} or seen["hidden"].dtype != seen["input"].dtype:
        return False
    same_input = torch.equal(seen["hidden"], seen["input"])
    return same_input and torch.equal(seen["logits"].to(logits.dtype), logits)
