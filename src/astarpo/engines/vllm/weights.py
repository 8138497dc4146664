"""What vLLM is given of a policy: weights by their names in the checkpoint, or an adapter."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from astarpo.models.policy import Policy
from astarpo.types import UserError

# The ranks of adapters that vLLM has room for.
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def checkpoint_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """A policy's weights without its adapter, by their names in the model's checkpoint."""
    from transformers.core_model_loading import revert_weight_conversion

    model = policy.model.get_base_model() if policy.adapter else policy.model
    weights = {
        name.replace(".base_layer.", "."): parameter.detach()
        for name, parameter in model.named_parameters()
        if ".lora_" not in name
    }
    # transformers fuses the experts of some models and renames parts of others when it loads them.
    yield from revert_weight_conversion(model, weights).items()


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
