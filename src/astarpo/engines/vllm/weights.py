"""What vLLM is given of a policy: weights by their names in the checkpoint, or an adapter."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from astarpo.models.empty import checkpoint_tensors
from astarpo.models.policy import Policy
from astarpo.models.sharded import whole
from astarpo.types import UserError

# The ranks of adapters that vLLM has room for.
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def checkpoint_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """A policy's weights without its adapter, by their names in the model's checkpoint.

    Processes that share a model all go through them, and put them together one by one.
    """
    for name, tensor in checkpoint_tensors(policy.model).items():
        yield name, whole(tensor.detach())


def retie_head(model: Any) -> None:
    """On a CPU a head that is tied to the embedding holds a packed copy of it, made at loading."""
    if getattr(model.config, "tie_word_embeddings", False) and hasattr(model, "lm_head"):
        model.lm_head.quant_method.process_weights_after_loading(model.lm_head)


def lora_settings(policy: Policy) -> dict[str, Any]:
    """What vLLM needs to know of an adapter when it starts; nothing where there is none."""
    if not policy.adapter:
        return {}
    (settings,) = policy.model.peft_config.values()
    if settings.r > _LORA_RANKS[-1]:
        raise UserError(
            f"lora_rank {settings.r}: vLLM takes adapters up to rank {_LORA_RANKS[-1]}; lower it, "
            "or take --engine hf"
        )
    rank = next(rank for rank in _LORA_RANKS if rank >= settings.r)
    return {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}
