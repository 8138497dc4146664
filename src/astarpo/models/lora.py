"""LoRA: a frozen model whose linear layers gain a low-rank term that is trained.

    y = W x + (alpha / rank) B A x,     A [rank, in] random, B [out, rank] zero at first

The policy is the model with the term, the reference the same model without it: one copy of the
weights serves both, and before training they agree to the bit. All linear layers but the output
layer have the term (in arXiv 2106.09685 those of attention only). PPO's critic has none: all of it
is trained.
"""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from astarpo.config import TrainConfig
from astarpo.models.folder import quiet_transformers
from astarpo.models.policy import Policy, load_policy, save_model
from astarpo.runtime.files import atomic_directory
from astarpo.runtime.seeding import derive_seed
from astarpo.types import UserError

_SCALE = 2
"""alpha / rank where alpha is not given."""


def require_lora(config: TrainConfig) -> None:
    """Checks that LoRA is possible with these settings, before anything long begins."""
    if config.lora_rank is None:
        if config.lora_alpha is not None:
            raise UserError("lora_alpha is the weight of a LoRA adapter: give --lora-rank too")
        return
    if config.reference_offload:
        raise UserError(
            "reference_offload: with --lora-rank the reference is the policy's own model, and "
            "there is nothing to keep elsewhere; leave it out"
        )
    _peft()


def adapt(base: Policy, config: TrainConfig, adapter: Path | None = None) -> tuple[Policy, Policy]:
    """Gives a policy's model an adapter; returns it as policy and as its own reference.

    Args:
        base: Frozen. Its model is changed in place.
        config: Gives rank and alpha; its seed is that of a new adapter.
        adapter: A saved adapter to go on from, None for a new one.
    """
    peft = _peft()
    if adapter:
        model = peft.PeftModel.from_pretrained(base.model, adapter, is_trainable=True)
    else:
        assert config.lora_rank is not None
        settings = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora_rank,
            lora_alpha=config.lora_alpha or _SCALE * config.lora_rank,
            target_modules="all-linear",
        )
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(config.seed, "lora"))
            model = peft.get_peft_model(base.model, settings)
        settings.base_model_name_or_path = config.model
    model.eval()
    return replace(base, model=model, adapter="on"), replace(base, model=model, adapter="off")


def save_adapter(path: Path, policy: Policy) -> None:
    """Saves the adapter alone, in peft's layout."""
    # By default peft asks the hub whether the vocabulary of the model has grown.
    policy.model.save_pretrained(str(path), save_embedding_layers=False)
    (path / "README.md").unlink()  # peft's template of a model card, with nothing filled in


def save_trained(run_path: Path, policy: Policy, name: str) -> None:
    """Writes `model/`; of a policy with an adapter also `adapter/`, merged into the model.

    The model is then read again, in fp32: the one that was trained may hold its weights in bf16.

    Args:
        run_path: The run directory.
        policy: What was trained.
        name: The model that it was trained from.
    """
    if policy.adapter:
        with atomic_directory(run_path / "adapter") as path:
            save_adapter(path, policy)
        plain = load_policy(name, torch.device("cpu"), policy.vocabulary)
        adapted = _peft().PeftModel.from_pretrained(plain.model, run_path / "adapter")
        policy = replace(plain, model=adapted.merge_and_unload())
    with atomic_directory(run_path / "model") as path:
        save_model(path, policy)


def _peft() -> Any:
    try:
        with quiet_transformers():
            return importlib.import_module("peft")
    except ImportError as error:
        raise UserError("lora_rank: peft is not installed; pip install peft") from error
