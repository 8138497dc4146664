"""Small models of many kinds, far enough from uniform that a mistake shows."""

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

_SIZES = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
KINDS = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "mistral": {"sliding_window": 16},  # all layers slide
    "gemma2": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3": {"tie_word_embeddings": True},
    "granite": {"attention_multiplier": 0.5},
    "bloom": {"n_layer": 2, "n_head": 4},  # positions from the mask
}


def small_model(kind: str, **changes) -> PreTrainedModel:
    settings = _SIZES | KINDS.get(kind, {}) | changes
    config = CONFIG_MAPPING[kind](**settings, eos_token_id=256, bos_token_id=None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model
