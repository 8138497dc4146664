"""Log-probs of chosen tokens from hidden states, holding the logits of one chunk at a time.

A micro-batch of 16k tokens over a vocabulary of 150k has 10 GB of logits, and their gradient takes
as much again. Here the output layer takes a chunk of tokens at a time, and the backward pass
computes the logits of each chunk again.

Shapes: _N tokens, _H hidden size, _V vocabulary.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from astarpo.models.agreement import gap, tell_slower, tolerance

# Logits of a chunk, 512 MB in fp32. Smaller chunks add up the weight's gradient more often.
MAX_LOGITS = 1 << 27

# On a GPU a chunk may be four times as large where there is room: each reads the output layer's
# weights anew, and adds a part to their gradient. Bytes of a logit, its gradient and entropy.
_MOST_LOGITS, _LOGIT_BYTES = 1 << 29, 14

# Tokens to try a model out on, and a value that is large both for hidden states and for logits.
_TRIED, _LARGE = 8, 100.0

_plain: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def is_plain(model: Any) -> bool:
    """Whether a model's logits are its output layer over its decoder's last hidden states.

    Some models cap or scale them as well. Forward passes over a few tokens show it, once a model.
    """
    if model not in _plain:
        _plain[model] = _try_out(model)
        if not _plain[model]:
            reason = "its logits are more than a linear layer over its decoder's hidden states"
            tell_slower(model, reason, "those of a whole micro-batch are held at once")
        torch.clear_autocast_cache()  # its casts were made without gradients
    return _plain[model]


def assume_plain(model: Any) -> None:
    """Takes a model's logits for what `is_plain` asks, without trying it out; see `assume_way`."""
    _plain[model] = True


def score_hidden(
    head: nn.Linear, hidden_NH: Tensor, ids_N: Tensor, temperature: float, *, entropy: bool
) -> tuple[Tensor, Tensor]:
    """Scores tokens as `score` does, chunk by chunk of what the output layer is applied to."""
    free = torch.cuda.mem_get_info(hidden_NH.device)[0] if hidden_NH.is_cuda else None
    chunk = max(1, max_logits(free) // head.out_features)

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


def max_logits(free_bytes: int | None) -> int:
    """How many logits to hold at once: a power of two, at most half of the memory that is free.

    Args:
        free_bytes: Of a GPU's memory; None for a CPU, on which larger chunks are not faster.
    """
    if free_bytes is None:
        return MAX_LOGITS
    room = max(1, free_bytes // (2 * _LOGIT_BYTES))
    return min(_MOST_LOGITS, max(MAX_LOGITS, 1 << (room.bit_length() - 1)))


def score(
    logits_NV: Tensor, ids_N: Tensor, temperature: float, *, entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probs of tokens and entropies of their distributions, in nats.

    Returns:
        [N] log-probs and [N] entropies, which carry no gradient and are 0 unless asked for.
    """
    logprobs_N, logprobs_NV = _Choose.apply(logits_NV, ids_N, temperature)
    entropy_N = torch.zeros_like(logprobs_N)
    if entropy:  # last, since a chunk is recomputed only as far as its gradient needs it
        with torch.no_grad():
            entropy_N = -logprobs_NV.exp().mul_(logprobs_NV).sum(dim=-1)
    return logprobs_N, entropy_N


class _Choose(torch.autograd.Function):
    """Log-probs of the chosen tokens, and of all. Autograd's own would hold two more [N, V]."""

    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, ids_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        scaled_NV = logits_NV if temperature == 1.0 else logits_NV / temperature
        logprobs_NV = scaled_NV.log_softmax(dim=-1, dtype=torch.float32)
        ctx.save_for_backward(logprobs_NV, ids_N)
        ctx.mark_non_differentiable(logprobs_NV)
        ctx.set_materialize_grads(False)  # else zeros are made for the log-probs of all tokens
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
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(head.out_features, (1, _TRIED), generator=generator).to(head.weight.device)
    theirs_NV = model(input_ids=ids, use_cache=False).logits[0]
    ours_NV = head(decoder(input_ids=ids, use_cache=False)[0])[0]
    if ours_NV.shape != theirs_NV.shape:
        return False
    ours_N, theirs_N = (score(each, ids[0], 1.0, entropy=False)[0] for each in (ours_NV, theirs_NV))
    return gap(ours_N, theirs_N, [_TRIED]) <= tolerance(model) and _passes_on(model, ids)


def _passes_on(model: Any, ids: Tensor) -> bool:
    """Whether hidden states reach the output layer, and its logits the caller, unchanged.

    Comparing results is not enough: small logits do not show a cap, and weights of zero do not show
    a scale. So what the decoder and the output layer return is overwritten by values up to
    `_LARGE`, which then have to arrive.
    """
    written: dict[str, Tensor] = {}
    arrived: dict[str, Tensor] = {}

    def overwrite(name: str, values: Tensor) -> None:
        values.copy_(torch.linspace(-_LARGE, _LARGE, values.numel()).view(values.shape))
        written[name] = values.clone()

    def at_decoder(_module: nn.Module, _args: Any, output: Any) -> None:
        overwrite("hidden", output[0])

    def at_head(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        arrived["hidden"] = args[0].clone()
        overwrite("logits", output)

    head, decoder = model.get_output_embeddings(), model.get_decoder()
    hooks = [decoder.register_forward_hook(at_decoder), head.register_forward_hook(at_head)]
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if written.keys() != {"hidden", "logits"} or written["hidden"].dtype != arrived["hidden"].dtype:
        return False
    same_input = torch.equal(written["hidden"], arrived["hidden"])
    return same_input and torch.equal(written["logits"].to(logits.dtype), logits)
