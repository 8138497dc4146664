"""A policy: a causal language model with its vocabulary."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from astarpo.models.batch import TokenBatch, collate
from astarpo.models.folder import load_part, quiet_transformers
from astarpo.models.fp32_head import Float32Linear, take_float32_head
from astarpo.models.sharded import device_of
from astarpo.models.vocabulary import Vocabulary, load_vocabulary

logger = logging.getLogger("astarpo")


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
    from transformers import AutoModelForCausalLM

    if not trainable:  # A policy to train comes right after its reference, from the same place.
        logger.info(f"loading {name}")
    vocabulary = vocabulary or load_vocabulary(name)
    load = AutoModelForCausalLM.from_pretrained
    model = load_part(name, "model", load, dtype=torch.float32, use_safetensors=True)
    if fp32_head:
        take_float32_head(model)
    return make_policy(model.to(device), vocabulary, trainable=trainable)


def make_policy(model: nn.Module, vocabulary: Vocabulary, *, trainable: bool = False) -> Policy:
    """Wraps a model and its vocabulary."""
    model.eval().requires_grad_(trainable)
    on_cuda = next(model.parameters()).device.type == "cuda"
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


def save_model(path: Path, policy: Policy) -> None:
    """Saves weights and tokenizer so that `from_pretrained` loads them."""
    with quiet_transformers():
        policy.model.save_pretrained(path)
    policy.vocabulary.tokenizer.save_pretrained(path)
