"""LoRA: a frozen model whose linear layers gain a low-rank term that is trained.

    y = W x + (alpha / rank) B A x,     A [rank, in] random, B [out, rank] zero at first

The policy is the model with the term, the reference the same model without it: one copy of the
weights serves both, and before training they agree to the bit. All linear layers but the output
layer have the term (in arXiv 2106.09685 those of attention only). PPO's critic has none: all of it
is trained.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astarpo.config import TrainConfig
from astarpo.models.empty import base_model, held_tensors, with_stand_ins
from astarpo.models.folder import quiet_transformers
from astarpo.models.policy import Policy, load_policy, save_model
from astarpo.models.sharded import whole
from astarpo.models.vocabulary import Vocabulary
from astarpo.runtime.files import atomic_directory
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.seeding import derive_seed
from astarpo.runtime.together import shared_directory
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
        base: Frozen. Its model, which may be empty, is changed in place.
        config: Gives rank and alpha; its seed is that of a new adapter.
        adapter: A saved adapter to go on from, None for a new one.
    """
    peft = _peft()
    if adapter:
        with with_stand_ins(base.model):
            model = peft.PeftModel.from_pretrained(base.model, adapter, is_trainable=True)
    else:
        assert config.lora_rank is not None
        settings = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora_rank,
            lora_alpha=config.lora_alpha or _SCALE * config.lora_rank,
            target_modules="all-linear",
        )
        with torch.random.fork_rng(), with_stand_ins(base.model):
            torch.manual_seed(derive_seed(config.seed, "lora"))
            model = peft.get_peft_model(base.model, settings)
        settings.base_model_name_or_path = config.model
    model.eval()
    return replace(base, model=model, adapter="on"), replace(base, model=model, adapter="off")


def save_adapter(path: Path, policy: Policy, where: OneProcess | None = None) -> None:
    """Saves the adapter alone, in peft's layout.

    Args:
        path: A folder.
        policy: Has an adapter.
        where: The processes that share it out, which all call this; the first one writes. None for
            one process, or where each writes to a folder of its own.
    """
    tensors = {
        name: whole(tensor.detach())
        for name, tensor in policy.model.state_dict(keep_vars=True).items()
        if ".lora_" in name
    }
    if where is None or where.is_first:
        # By default peft asks the hub whether the vocabulary of the model has grown.
        policy.model.save_pretrained(str(path), save_embedding_layers=False, state_dict=tensors)
        (path / "README.md").unlink()  # peft's template of a model card, with nothing filled in


def merged_tensors(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """A policy's tensors by their names in the model, the adapter's share in them.

    They are put together one at a time; all processes that share the policy out go through them.
    """
    base = base_model(policy.model)
    for name, tensor in held_tensors(policy.model).items():
        values = whole(tensor.detach())
        layer = base.get_submodule(name.rpartition(".")[0])
        if policy.adapter and name.endswith(".weight") and hasattr(layer, "lora_A"):
            for adapter, scale in layer.scaling.items():
                down, up = (
                    whole(part[adapter].weight.detach()) for part in (layer.lora_A, layer.lora_B)
                )
                change = scale * (up @ down)
                values = values.float() + (change.T if layer.fan_in_fan_out else change)
        yield name, values


def save_trained(
    run_path: Path, policy: Policy, name: str, where: OneProcess | None = None
) -> None:
    """Writes `model/`; of a policy with an adapter also `adapter/`, merged into the model.

    The model is then read again, in fp32, by the first process: the one that was trained may hold
    its weights in bf16.

    Args:
        run_path: The run directory.
        policy: What was trained.
        name: The model that it was trained from.
        where: The processes that share it out, which all call this; None for one process.
    """
    where = where or OneProcess(policy.device)
    if not policy.adapter:
        with shared_directory(run_path / "model", where) as path:
            save_model(path, policy, where)
        return
    with shared_directory(run_path / "adapter", where) as path:
        save_adapter(path, policy, where)
    where.first(lambda: _save_merged(run_path, policy.vocabulary, name))


def _save_merged(run_path: Path, vocabulary: Vocabulary, name: str) -> None:
    plain = load_policy(name, torch.device("cpu"), vocabulary)
    adapted = _peft().PeftModel.from_pretrained(plain.model, run_path / "adapter")
    with atomic_directory(run_path / "model") as path:
        save_model(path, replace(plain, model=adapted.merge_and_unload()))


def _peft() -> Any:
    try:
        with quiet_transformers():
            return importlib.import_module("peft")
    except ImportError as error:
        raise UserError("lora_rank: peft is not installed; pip install peft") from error
