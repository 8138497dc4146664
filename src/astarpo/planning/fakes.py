"""Models of fake tensors: they have shapes and devices, take part in any operation, hold nothing.

PyTorch's fake tensors run the very code that real ones run, kernels aside, so that what a learner
would hold in memory can be counted without the memory, the weights or a GPU.
"""

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import AutoModelForTokenClassification

from astarpo.config import TrainConfig
from astarpo.models.folder import quiet_transformers
from astarpo.models.fp32_head import take_float32_head
from astarpo.models.lora import adapt
from astarpo.models.policy import Policy, round_linears
from astarpo.models.vocabulary import Vocabulary
from astarpo.planning.shape import build_meta

_NO_VOCABULARY = Vocabulary(tokenizer=None, stop_ids=frozenset({0}), pad_id=0)

_HOST = torch.device("cpu")


def open_fakes(
    config: Any, train: TrainConfig, compute: torch.dtype | None, mode: FakeTensorMode
) -> tuple[Policy, Policy]:
    """The policy and its reference, as `training/opening.py` loads them.

    Args:
        config: The model's.
        train: Gives the adapter and the dtype of the output layer.
        compute: What autocast computes in, None to compute in float32.
        mode: Owns the fake tensors.
    """
    reference = _load(config, train, compute, trainable=False)
    if train.lora_rank is not None:
        base = Policy(reference, _NO_VOCABULARY, compute)
        policy, reference_policy = adapt(base, train)
        make_fake(policy.model, mode)
        return policy, reference_policy
    model = _load(config, train, compute, trainable=True)
    for each in (model, reference):
        make_fake(each, mode)
    return (
        Policy(model, _NO_VOCABULARY, compute),
        Policy(reference, _NO_VOCABULARY, compute),
    )


def open_fake_critic(config: Any, mode: FakeTensorMode) -> Any:
    """PPO's critic, as `load_critic` loads it."""
    with quiet_transformers():  # which remarks on the labels that the config had
        labelled = type(config).from_dict({**config.to_dict(), "num_labels": 1})
    critic = build_meta(labelled, AutoModelForTokenClassification)
    make_fake(critic, mode)
    return critic


def make_fake(model: nn.Module, mode: FakeTensorMode) -> None:
    """Puts fake tensors in the places of a model's own; shared ones stay shared."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    made[id(tensor)] = _fake(tensor, mode)
                held[name] = made[id(tensor)]


def _load(config: Any, train: TrainConfig, compute: torch.dtype | None, *, trainable: bool) -> Any:
    """As `load_policy`, on the meta device."""
    model = build_meta(config)
    if train.fp32_head:
        take_float32_head(model)
    model.requires_grad_(trainable)
    if compute is not None and not trainable:
        round_linears(model, compute)
    return model


def _fake(tensor: torch.Tensor, mode: FakeTensorMode) -> Any:
    fake = FakeTensor(mode, tensor.detach().to("meta"), _HOST)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, requires_grad=tensor.requires_grad)
    return fake
