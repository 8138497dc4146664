"""An output layer that computes in float32 where the rest of the model computes in bfloat16.

A logit between 16 and 32 has a spacing of 1/8 in bfloat16. Rounding it is what log-probs of trainer
and engine differ by most, so both take this layer or neither does.
"""

from typing import Any

import torch
from torch import Tensor, nn

from astarpo.types import UserError


class Float32Linear(nn.Linear):
    """A linear layer that autocast leaves in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output in float32, whatever comes in."""
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return nn.functional.linear(input.float(), self.weight.float(), bias)


def take_float32_head(model: Any) -> None:
    """Has a model's output layer compute in float32; its weights, also where tied, stay its own.

    Raises:
        UserError: The model has another kind of output layer.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise UserError(
            f"fp32_head: the output layer of {type(model).__name__} is no plain linear layer; "
            "leave it out"
        )
    head.__class__ = Float32Linear
