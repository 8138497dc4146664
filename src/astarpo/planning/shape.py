"""The shape of a model: its parameters by kind, from its `config.json` alone.

Parameters are counted on PyTorch's meta device, where a tensor has a shape and no numbers, so that
70 billion take a second and no memory.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from astarpo.models.folder import load_part, quiet_transformers
from astarpo.types import UserError


@dataclass(frozen=True)
class ModelShape:
    """A model without its weights.

    Attributes:
        name: The folder or hub name, for messages.
        config: Its config, a transformers object.
    """

    name: str
    config: Any

    @cached_property
    def model(self) -> Any:
        """The model on the meta device."""
        return build_meta(self.config)

    @cached_property
    def num_parameters(self) -> int:
        """All parameters; a head that is tied to the embedding counts once."""
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def num_embedding(self) -> int:
        """Parameters of the input embedding, which a decoding step does not read whole."""
        return self.model.get_input_embeddings().weight.numel()

    @cached_property
    def num_head(self) -> int:
        """Parameters of the output layer."""
        return self.model.get_output_embeddings().weight.numel()

    @property
    def is_tied(self) -> bool:
        """Whether the output layer shares the embedding's weights."""
        return self.model.get_output_embeddings().weight is self.model.get_input_embeddings().weight

    @property
    def num_body(self) -> int:
        """Parameters of everything between the embedding and the output layer."""
        return self.num_parameters - self.num_embedding - (0 if self.is_tied else self.num_head)

    @property
    def num_read(self) -> int:
        """Parameters that are multiplied for one token: all but the embedding's."""
        return self.num_body + self.num_head

    @property
    def num_layers(self) -> int:
        """How many decoder layers there are."""
        return self._text.num_hidden_layers

    @property
    def layer_size(self) -> int:
        """Parameters of one decoder layer, in the mean."""
        return self.num_body // self.num_layers

    @property
    def vocabulary_size(self) -> int:
        """Token ids that the model has."""
        return self.model.get_output_embeddings().weight.shape[0]

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self._text.hidden_size

    @property
    def cached_numbers(self) -> int:
        """Numbers that keys and values hold of one token, over all layers."""
        heads = getattr(self._text, "num_key_value_heads", None) or self._text.num_attention_heads
        size = getattr(self._text, "head_dim", None)
        size = size or self._text.hidden_size // self._text.num_attention_heads
        return 2 * self.num_layers * heads * size

    @property
    def context(self) -> int | None:
        """The most tokens that the model was made for, where its config says."""
        return getattr(self._text, "max_position_embeddings", None)

    @property
    def _text(self) -> Any:
        return self.config.get_text_config()

    def with_layers(self, count: int) -> Any:
        """The config of the same model with fewer decoder layers."""
        config = type(self.config).from_dict(self.config.to_dict())
        text = config.get_text_config()
        text.num_hidden_layers = count
        if types := getattr(text, "layer_types", None):
            text.layer_types = types[:count]
        return config


def read_shape(name: str) -> ModelShape:
    """The shape of a model, a folder or a hub name; of its files `config.json` alone is read.

    Raises:
        UserError: It cannot be found, or is no causal language model that transformers knows.
    """
    config = load_part(name, "config", AutoConfig.from_pretrained)
    shape = ModelShape(name, config)
    try:
        shape.num_read  # noqa: B018  builds the model, which an unfit config does not allow
    except Exception as error:  # as many kinds as there are mistakes in a config
        first, *_ = str(error).strip().splitlines() or [""]
        raise UserError(f"{name}: its config makes no language model ({first})") from error
    return shape


def build_meta(config: Any, auto: Any = AutoModelForCausalLM) -> nn.Module:
    """A model of a config on the meta device, in float32, as `load_policy` loads it."""
    with quiet_transformers(), torch.device("meta"):
        return auto.from_config(config, dtype=torch.float32).eval()
