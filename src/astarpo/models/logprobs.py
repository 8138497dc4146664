"""Log-probs of the tokens that were sampled, and the entropies that they were drawn from.

Shapes: _B sequences, _T response tokens, _R response tokens of all sequences, _H hidden size.
"""

from typing import Any, NamedTuple

from torch import Tensor

from astarpo.models.batch import TokenBatch
from astarpo.models.head import is_plain, score, score_hidden
from astarpo.models.sharded import within
from astarpo.models.ways import Way, before_responses, fitting_way


class TokenLogprobs(NamedTuple):
    """A model's log-probs of a batch's response tokens, and its entropies; 0 on padding.

    Attributes:
        logprobs_BT: [B, T] log-probability of each token, in nats.
        entropy_BT: [B, T] entropy of the distribution each was drawn from, in nats; None unless
            asked for. Carries no gradient.
    """

    logprobs_BT: Tensor
    entropy_BT: Tensor | None


def token_logprobs(
    model: Any, batch: TokenBatch, temperature: float, *, entropy: bool = False
) -> TokenLogprobs:
    """Log-probs of response tokens under the distribution sampled at `temperature`.

    Args:
        model: A transformers causal language model.
        batch: The sequences.
        temperature: What the responses were sampled at; logits are divided by it.
        entropy: Whether to compute the entropies too.

    Raises:
        UserError: The model cannot be sampled from: it sees the tokens that it is to predict.
    """
    way = fit_logprobs(model, batch)
    scored = _score(model, batch, temperature, way, entropy=entropy)
    logprobs_BT, entropy_BT = map(batch.at_responses, scored)
    return TokenLogprobs(logprobs_BT, entropy_BT if entropy else None)


def fit_logprobs(model: Any, batch: TokenBatch) -> Way:
    """How sequences as long as these go through a model; it is tried out on them if it is new.

    Processes that share a sharded model try it out on the same sequences at the same time, before
    they give it different ones.

    Raises:
        UserError: See `token_logprobs`.
    """
    return fitting_way(
        model, batch, lambda part, way: _score(model, part, 1.0, way, entropy=False)[0]
    )


def logprobs_alone(model: Any, batch: TokenBatch, temperature: float) -> Tensor:
    """Log-probs of response tokens, [R], where each sequence goes through the model alone."""
    return _score(model, batch, temperature, "alone", entropy=False)[0]


def _score(
    model: Any, batch: TokenBatch, temperature: float, way: Way, *, entropy: bool
) -> tuple[Tensor, Tensor]:
    """See `score`."""
    return within(model, _score_within, batch, temperature, way, entropy=entropy)


def _score_within(
    model: Any, batch: TokenBatch, temperature: float, way: Way, *, entropy: bool
) -> tuple[Tensor, Tensor]:
    ids_R = batch.response_ids_BT.flatten()[batch.cell_R]
    if not is_plain(model):
        logits_RV = before_responses(model, batch, way)
        logprobs_R, entropy_R = score(logits_RV, ids_R, temperature, entropy=entropy)
        return logprobs_R.clone(), entropy_R  # FSDP2 wants no views
    hidden_RH = before_responses(model.get_decoder(), batch, way)
    head = model.get_output_embeddings()
    return score_hidden(head, hidden_RH, ids_R, temperature, entropy=entropy)
