"""A policy: a causal language model with its vocabulary."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from astarpo.models.batch import TokenBatch, collate
from astarpo.models.empty import checkpoint_tensors, empty_model, fill, materialize
from astarpo.models.folder import load_part, quiet_transformers
from astarpo.models.fp32_head import Float32Linear, take_float32_head
from astarpo.models.sharded import device_of
from astarpo.models.shards import write_tensors
from astarpo.models.vocabulary import Vocabulary, load_vocabulary, read_generation_config
from astarpo.runtime.one_process import OneProcess

logger = logging.getLogger("astarpo")

_FORMAT = {"format": "pt"}
"""What transformers asks of the head of each file of weights."""


@dataclass(frozen=True)
class Policy:
    """A model ready to sample from and to train.

    Attributes:
        model: In eval mode for good: dropout would make log-probs noisy and KL too large.
        vocabulary: What its token ids mean.
        autocast_dtype: Compute dtype over fp32 weights, None to compute in the weights' own.
        adapter: Whether the model's LoRA adapter takes part, None where it has none (`lora.py`).
    """

    model: Any
    vocabulary: Vocabulary
    autocast_dtype: torch.dtype | None = None
    adapter: Literal["on", "off"] | None = None

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return device_of(self.model)

    @property
    def vocabulary_size(self) -> int:
        """How many token ids the model has, which may be more than its tokenizer uses."""
        return self.model.get_input_embeddings().weight.shape[0]

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Context in which the model computes, the same for sampling, reference and update."""
        enabled = self.autocast_dtype is not None
        without = self.model.disable_adapter() if self.adapter == "off" else nullcontext()
        with without, torch.autocast(self.device.type, self.autocast_dtype, enabled):
            yield

    def collate(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> TokenBatch:
        """Prompts, each with its response, as tensors for the model; see `models/batch.py`."""
        prompts, responses = zip(*sequences, strict=True)
        return collate(prompts, responses, self.vocabulary.pad_id, self.device)


def load_policy(
    name: str,
    device: torch.device,
    vocabulary: Vocabulary | None = None,
    *,
    trainable: bool = False,
    fp32_head: bool = False,
) -> Policy:
    """Loads a policy with fp32 weights; on CUDA it computes in bf16 (see `round_linears`).

    Args:
        name: A model folder or a hub name. Safetensors only, no remote code.
        device: Where to put it.
        vocabulary: The model's, where it is loaded already.
        trainable: Whether its parameters take gradients.
        fp32_head: Whether its output layer computes in float32 all the same.

    Raises:
        UserError: It cannot be found or does not load.
    """
    if not trainable:  # A policy to train comes right after its reference, from the same place.
        logger.info(f"loading {name}")
    vocabulary = vocabulary or load_vocabulary(name)
    model = _load_model(name)
    if fp32_head:
        take_float32_head(model)
    return make_policy(model.to(device), vocabulary, trainable=trainable)


def empty_policy(
    name: str,
    device: torch.device,
    vocabulary: Vocabulary,
    *,
    trainable: bool = False,
    fp32_head: bool = False,
) -> Policy:
    """A policy as `load_policy` would give it, whose weights `fill_policy` brings.

    In between it is shared out among processes: none of them then holds more than its own part.

    Args:
        name: A model folder or a hub name.
        device: Where its weights are going to be.
        vocabulary: The model's.
        trainable: Whether its parameters take gradients.
        fp32_head: Whether its output layer computes in float32 all the same.

    Raises:
        UserError: It cannot be found or does not load.
    """
    from transformers import AutoModelForCausalLM

    model = empty_model(name, AutoModelForCausalLM)
    model.generation_config = load_part(name, "generation config", read_generation_config)
    if fp32_head:
        take_float32_head(model)
    return make_policy(model, vocabulary, trainable=trainable, device=device)


def fill_policy(policy: Policy, name: str, where: OneProcess, *, offload: bool = False) -> None:
    """Reads the weights of an empty policy, of which each process reads the parts that it holds.

    Args:
        policy: What `empty_policy` gave, with or without an adapter, shared out or not.
        name: The model folder or hub name that it was made from.
        where: The processes, which all call this.
        offload: Whether it is shared out with its weights in the host's memory.

    Raises:
        UserError: The weights are not there, or do not load.
    """
    materialize(policy.model, where.device, offload=offload)
    fill(policy.model, name, lambda: _load_model(name), where)


def _load_model(name: str) -> Any:
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained
    return load_part(name, "model", load, dtype=torch.float32, use_safetensors=True)


def make_policy(
    model: nn.Module,
    vocabulary: Vocabulary,
    *,
    trainable: bool = False,
    device: torch.device | None = None,
) -> Policy:
    """Wraps a model and its vocabulary; `device` is where it will be if it is not there yet."""
    model.eval().requires_grad_(trainable)
    on_cuda = (device or next(model.parameters()).device).type == "cuda"
    if on_cuda:
        # PyTorch's first choice on recent cards. cuDNN makes a plan for each new shape, about a
        # second forward and backward, and nearly every micro-batch has a shape of its own.
        torch.backends.cuda.enable_cudnn_sdp(False)
        if not trainable:
            round_linears(model, torch.bfloat16)
    return Policy(model, vocabulary, autocast_dtype=torch.bfloat16 if on_cuda else None)


def round_linears(model: nn.Module, dtype: torch.dtype) -> None:
    """Stores the weights of linear layers in the dtype that autocast computes them in.

    The results are the same to the bit, in half the memory. Autocast keeps the weights that it cast
    only where they take gradients: those of a frozen model it would cast anew for every token. All
    else, such as norms and embeddings, stays as it is, since autocast leaves it so.

    Args:
        model: Frozen. A head tied to its embedding gets weights of its own.
        dtype: Autocast's.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and not isinstance(layer, Float32Linear):
            for name, weight in list(layer.named_parameters(recurse=False)):
                setattr(layer, name, nn.Parameter(weight.to(dtype), requires_grad=False))


def save_model(path: Path, policy: Policy, where: OneProcess | None = None) -> None:
    """Saves weights and tokenizer so that `from_pretrained` loads them.

    Args:
        path: A folder, which all processes see.
        policy: Has no adapter.
        where: The processes that share the weights out, which all call this; None for one that has
            all of them.
    """
    if where is None or where.size == 1:
        with quiet_transformers():
            policy.model.save_pretrained(path)
        policy.vocabulary.tokenizer.save_pretrained(path)
        return
    path.mkdir(exist_ok=True)
    # First of all, since a process that fails must not leave the others waiting for its parts.
    write_tensors(path, "model", checkpoint_tensors(policy.model), where, metadata=_FORMAT)
    if where.is_first:
        _describe(policy.model, path)
        policy.vocabulary.tokenizer.save_pretrained(path)


def _describe(model: Any, path: Path) -> None:
    """Writes the config as transformers does beside weights, but from a model that is sharded."""
    config = copy.copy(model.config)
    config.dtype = str(model.dtype).removeprefix("torch.")
    config.architectures = [type(model).__name__]
    config.save_pretrained(path)
    model.generation_config.save_pretrained(path)
