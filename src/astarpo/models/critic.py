"""The critic: a model of its own that predicts, before each token, the reward still to come.

Shapes: _B sequences, _T response tokens.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astarpo.models.batch import TokenBatch
from astarpo.models.empty import empty_model, fill, materialize
from astarpo.models.folder import load_part
from astarpo.models.sharded import within
from astarpo.models.shards import TensorFiles, set_own_part, write_tensors
from astarpo.models.ways import Way, before_responses, fitting_way
from astarpo.runtime.one_process import OneProcess


def load_critic(name: str, device: torch.device) -> Any:
    """A critic that starts from a model's weights, with a head that predicts 0 everywhere.

    Raises:
        UserError: It cannot be found, or transformers has no value head for its kind.
    """
    critic = _load(name)
    for parameter in _head(critic).parameters():
        torch.nn.init.zeros_(parameter)
    return critic.eval().to(device)  # eval for good: no dropout, as in the policy


def empty_critic(name: str) -> Any:
    """A critic as `load_critic` would give it, whose weights `fill_critic` brings.

    In between it is shared out among processes: none of them then holds more than its own part.
    """
    from transformers import AutoModelForTokenClassification

    return empty_model(name, AutoModelForTokenClassification, num_labels=1).eval()


def fill_critic(critic: Any, name: str, where: OneProcess, *, offload: bool = False) -> None:
    """Reads the weights of an empty critic, of which each process reads the parts that it holds.

    Args:
        critic: What `empty_critic` gave, shared out or not.
        name: The model folder or hub name that it was made from.
        where: The processes, which all call this.
        offload: Whether it is shared out with its weights in the host's memory.
    """
    materialize(critic, where.device, offload=offload)
    head = {id(parameter) for parameter in _head(critic).parameters()}
    new = [each for each, parameter in critic.named_parameters() if id(parameter) in head]
    fill(critic, name, lambda: _load(name), where, new)
    for each in new:
        torch.nn.init.zeros_(critic.get_parameter(each))


def _load(name: str) -> Any:
    from transformers import AutoModelForTokenClassification

    load = AutoModelForTokenClassification.from_pretrained
    settings = {"num_labels": 1, "dtype": torch.float32, "use_safetensors": True}
    return load_part(name, "critic", load, **settings)


def _head(critic: Any) -> Any:
    return critic.score if hasattr(critic, "score") else critic.classifier


def critic_values(critic: Any, batch: TokenBatch) -> Tensor:
    """The reward that the critic predicts before each response token: [B, T]."""
    way = fit_critic(critic, batch)
    values_RX = within(critic, before_responses, batch, way)
    return batch.at_responses(values_RX.squeeze(-1).float())


def fit_critic(critic: Any, batch: TokenBatch) -> Way:
    """How sequences as long as these go through a critic; see `fit_logprobs`."""
    return fitting_way(critic, batch, partial(_features, critic))


def save_critic(folder: Path, critic: Any, where: OneProcess | None = None) -> None:
    """Writes a critic's weights as `critic.safetensors`, or several files (`shards.py`).

    Args:
        folder: Where; all processes see it.
        critic: May be shared out.
        where: The processes that share it out, which all call this; None for one that has it all.
    """
    write_tensors(folder, "critic", critic.state_dict(keep_vars=True), where)


def restore_critic(folder: Path, critic: Any) -> None:
    """Reads what `save_critic` wrote into a critic of the same shape, of which it may be a part."""
    with TensorFiles(folder, "critic") as files:
        for name, tensor in critic.state_dict(keep_vars=True).items():
            set_own_part(tensor, files.read_like(name, tensor))


def _features(critic: Any, batch: TokenBatch, way: Way) -> Tensor:
    """The input of its head, scaled to a mean square of 1.

    Ways are compared by this, since the head's own output is 0 before training.
    """
    hidden_RH = within(critic, _hidden, batch, way).float()
    return nn.functional.rms_norm(hidden_RH, hidden_RH.shape[-1:])


def _hidden(critic: Any, batch: TokenBatch, way: Way) -> Tensor:
    return before_responses(critic.base_model, batch, way)
