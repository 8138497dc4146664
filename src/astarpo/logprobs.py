"""Log-probs of the tokens that were sampled, and the entropies that they were drawn from.

Shapes: _B sequences, _T response tokens, _R response tokens of all sequences, _H hidden size.
"""

from typing import Any, NamedTuple

from torch import Tensor

from astarpo.batch import TokenBatch
from astarpo.head import is_plain, score, score_hidden
from astarpo.packing import before_responses


class TokenLogprobs(NamedTuple):
    """What a model says of a batch's response tokens; 0 on padding.

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
    """
    ids_R = batch.response_ids_BT.flatten()[batch.cell_R]
    if is_plain(model):
        hidden_RH = before_responses(model.get_decoder(), batch)
        head = model.get_output_embeddings()
        scored = score_hidden(head, hidden_RH, ids_R, temperature, entropy=entropy)
    else:
        scored = score(before_responses(model, batch), ids_R, temperature, entropy=entropy)
    logprobs_BT, entropy_BT = map(batch.at_responses, scored)
    return TokenLogprobs(logprobs_BT, entropy_BT if entropy else None)
