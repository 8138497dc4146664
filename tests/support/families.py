"""Tiny models of the families that people train, random in all their weights.

Windows are shorter than the sequences that tests read, so that one that is overlooked shows.
"""

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 258
WINDOW = 16

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 256,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
_OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
_MAMBA = {
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}

# transformers computes these so that a token depends on those after it; for XLM that is causal its
# `generate` reads a mask token besides, and several rows of RWKV are not decoded as each alone is.
REFUSED = {
    "BigBird",
    "BigBird, full",
    "DeepSeek-V4",
    "Doge",
    "Doge, short window",
    "RWKV",
    "XLM",
    "XLM, causal",
}

FAMILIES = {
    "Llama": ("llama", {}),
    "Qwen2": ("qwen2", {}),
    "Qwen2, sliding": ("qwen2", {**_SLIDING, "use_sliding_window": True}),
    "Qwen2-MoE, sliding": (
        "qwen2_moe",
        {**_EXPERTS, **_SLIDING, "use_sliding_window": True, "shared_expert_intermediate_size": 32},
    ),
    "Qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "Qwen3-MoE": ("qwen3_moe", _EXPERTS),
    "Qwen3-Next": ("qwen3_next", {**_EXPERTS, **_DELTA, "shared_expert_intermediate_size": 32}),
    "Qwen3.5": ("qwen3_5_text", _DELTA),
    "Qwen3.5-MoE": (
        "qwen3_5_moe_text",
        {**_EXPERTS, **_DELTA, "shared_expert_intermediate_size": 32},
    ),
    "Gemma 2": ("gemma2", _SLIDING),
    "Gemma 3 (text)": ("gemma3_text", _SLIDING),
    "Phi-3": ("phi3", {}),
    "Phi-3, sliding": ("phi3", {"sliding_window": WINDOW}),
    "Phi-MoE": ("phimoe", {**_LOCAL_EXPERTS, "sliding_window": WINDOW}),
    "Mistral": ("mistral", {"sliding_window": WINDOW}),
    "Mixtral": ("mixtral", _LOCAL_EXPERTS),
    "Granite": (
        "granite",
        {
            "attention_multiplier": 0.5,
            "logits_scaling": 4.0,
            "residual_multiplier": 0.5,
            "embedding_multiplier": 3.0,
        },
    ),
    "Granite-MoE hybrid": (
        "granitemoehybrid",
        {
            **_LOCAL_EXPERTS,
            **_MAMBA,
            "mamba_expand": 2,
            "logits_scaling": 4.0,
            "layer_types": ["mamba", "attention"],
            "shared_intermediate_size": 32,
        },
    ),
    "Cohere": ("cohere", {"logit_scale": 0.3}),
    "Cohere 2": ("cohere2", {**_SLIDING, "logit_scale": 0.3}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", _SLIDING),
    "OLMo hybrid": ("olmo_hybrid", _DELTA),
    "SmolLM3": ("smollm3", {}),
    "GPT-OSS": ("gpt_oss", {**_LOCAL_EXPERTS, **_SLIDING}),
    "DeepSeek-V3": ("deepseek_v3", {**_LATENT, "num_key_value_heads": 4, "head_dim": 8}),
    "DeepSeek-V4": (
        "deepseek_v4",
        {
            "moe_intermediate_size": 32,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "q_lora_rank": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "o_groups": 2,
            "o_lora_rank": 16,
            "index_n_heads": 2,
            "index_head_dim": 16,
            "index_topk": 4,
            "sliding_window": WINDOW,
            "mlp_layer_types": ["moe", "moe"],
            "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
            "layer_types": ["compressed_sparse_attention", "heavily_compressed_attention"],
        },
    ),
    "GLM-4": ("glm4", {}),
    "Kimi-Linear": (
        "kimi_linear",
        {
            **_LATENT,
            "num_key_value_heads": 4,
            "num_local_experts": 4,
            "linear_head_dim": 8,
            "linear_num_heads": 4,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "Nemotron-H": (
        "nemotron_h",
        {
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "num_hidden_layers": 4,
            "ssm_state_size": 8,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "n_groups": 1,
            "chunk_size": 16,
            "n_routed_experts": 4,
            "moe_intermediate_size": 32,
            "moe_shared_expert_intermediate_size": 32,
        },
    ),
    "Mamba": ("mamba", {"state_size": 8}),
    "Mamba 2": (
        "mamba2",
        {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16},
    ),
    "MiniMax": (
        "minimax",
        {**_LOCAL_EXPERTS, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "Jamba": (
        "jamba",
        {
            **_EXPERTS,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        },
    ),
    "LFM2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "Falcon-H1": ("falcon_h1", {**_MAMBA, "mamba_d_ssm": 64}),
    "Doge": ("doge", {"keep_window_size": 256}),
    "Doge, short window": ("doge", {"keep_window_size": 8}),
    "GPT-2": ("gpt2", _OLD),
    "GPT-NeoX": ("gpt_neox", {}),
    "GPT-1": ("openai-gpt", _OLD),
    "OPT": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "Bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "Falcon": ("falcon", {"new_decoder_architecture": False}),
    "BigBird": ("big_bird", {"is_decoder": True, "block_size": 8, "num_random_blocks": 1}),
    "XLM": ("xlm", {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": VOCABULARY}),
    "XLM, causal": (
        "xlm",
        {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": VOCABULARY, "causal": True},
    ),
    "BigBird, full": ("big_bird", {"is_decoder": True, "attention_type": "original_full"}),
    "RWKV": ("rwkv", {"context_length": 256, "attention_hidden_size": 32}),
    "RecurrentGemma": (
        "recurrent_gemma",
        {
            "attention_window_size": WINDOW,
            "lru_width": 32,
            "num_hidden_layers": 3,
            "block_types": ["recurrent", "recurrent", "attention"],
        },
    ),
}


def family_model(name: str) -> PreTrainedModel:
    """A model of a family, far enough from uniform that a mistake shows."""
    kind, settings = FAMILIES[name]
    sizes = {k: v for k, v in (_SIZES | settings).items() if (kind, k) != ("falcon", "head_dim")}
    config = CONFIG_MAPPING[kind](**sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data += 0.1 * torch.randn_like(parameter)
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.weight.data += 0.3 * torch.randn_like(module.weight)
    return model
