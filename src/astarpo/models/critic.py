"""The critic: a model of its own that predicts, before each token, the reward still to come.

Shapes: _B sequences, _T response tokens.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from astarpo.models.batch import TokenBatch
from astarpo.models.folder import load_part
from astarpo.models.sharded import within
from astarpo.models.ways import Way, before_responses, fitting_way


def load_critic(name: str, device: torch.device) -> Any:
    """A critic that starts from a model's weights, with a head that predicts 0 everywhere.

    Raises:
        UserError: It cannot be found, or transformers has no value head for its kind.
    """
    from transformers import AutoModelForTokenClassification

    load = AutoModelForTokenClassification.from_pretrained
    settings = {"num_labels": 1, "dtype": torch.float32, "use_safetensors": True}
    critic = load_part(name, "critic", load, **settings)
    head = critic.score if hasattr(critic, "score") else critic.classifier
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    return critic.eval().to(device)  # eval for good: no dropout, as in the policy


def critic_values(critic: Any, batch: TokenBatch) -> Tensor:
    """The reward that the critic predicts before each response token: [B, T]."""
    way = fit_critic(critic, batch)
    values_RX = within(critic, before_responses, batch, way)
    return batch.at_responses(values_RX.squeeze(-1).float())


def fit_critic(critic: Any, batch: TokenBatch) -> Way:
    """How sequences as long as these go through a critic; see `fit_logprobs`."""
    return fitting_way(critic, batch, partial(_features, critic))


def save_critic(path: Path, critic: Any) -> None:
    """Writes a critic's weights."""
    save_file({name: w.contiguous() for name, w in critic.state_dict().items()}, path)


def restore_critic(path: Path, critic: Any) -> None:
    """Reads what `save_critic` wrote into a critic of the same shape."""
    critic.load_state_dict(load_file(path))


def _features(critic: Any, batch: TokenBatch, way: Way) -> Tensor:
    """The input of its head, scaled to a mean square of 1.

    Ways are compared by this, since the head's own output is 0 before training.
    """
    hidden_RH = within(critic, _hidden, batch, way).float()
    return nn.functional.rms_norm(hidden_RH, hidden_RH.shape[-1:])


def _hidden(critic: Any, batch: TokenBatch, way: Way) -> Tensor:
    return before_responses(critic.base_model, batch, way)
