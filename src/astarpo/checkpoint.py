"""Checkpoints: everything a run needs to go on as if it had never stopped.

    model/                 weights in fp32 and tokenizer, Hugging Face layout
    critic.safetensors     the critic's weights, where there is one
    optimizer.safetensors  moments of every parameter
    state.json             steps done

Learning rate, data order and random numbers are functions of the seed and the step, so the step is
all the state they have. Safetensors only: loading one runs no code.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from astarpo.critic import restore_critic, save_critic
from astarpo.files import atomic_directory, remove_directory
from astarpo.learner import Learner
from astarpo.policy import save_model
from astarpo.types import UserError


def save_checkpoint(run_path: Path, step: int, learner: Learner, keep: int) -> None:
    """Writes a checkpoint whole or not at all, then removes all but the latest `keep`."""
    with atomic_directory(run_path / "checkpoints" / f"step-{step:06d}") as path:
        save_model(path / "model", learner.policy)
        if learner.critic is not None:
            save_critic(path / "critic.safetensors", learner.critic)
        save_file(_optimizer_tensors(learner), path / "optimizer.safetensors")
        (path / "state.json").write_text(json.dumps({"step": step}), encoding="utf-8")
    for old in _checkpoints(run_path)[:-keep]:
        remove_directory(old)


def latest_checkpoint(run_path: Path) -> tuple[Path, int] | None:
    """The last complete checkpoint and its step, None where there is none."""
    checkpoints = _checkpoints(run_path)
    if not checkpoints:
        return None
    state = json.loads((checkpoints[-1] / "state.json").read_text(encoding="utf-8"))
    return checkpoints[-1], state["step"]


def restore(path: Path, learner: Learner) -> None:
    """Restores critic and optimiser from a checkpoint; the policy was loaded from its `model/`.

    Raises:
        UserError: It does not belong to this model.
    """
    if learner.critic is not None:
        restore_critic(path / "critic.safetensors", learner.critic)
    tensors = load_file(path / "optimizer.safetensors", device=str(learner.policy.device))
    for name, parameter in learner.parameters.items():
        if f"{name}:step" not in tensors:
            raise UserError(f"{path}: the optimiser state has nothing for parameter {name}")
        learner.optimizer.state[parameter] = {key: tensors[f"{name}:{key}"] for key in _MOMENTS}


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _optimizer_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in learner.parameters.items():
        state: dict[str, Any] = learner.optimizer.state[parameter]
        if not state:  # never updated: as AdamW would begin
            zeros = torch.zeros_like(parameter)
            state = {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        tensors |= {f"{name}:{key}": state[key].contiguous() for key in _MOMENTS}
    return tensors


def _checkpoints(run_path: Path) -> list[Path]:
    return sorted(path.parent for path in run_path.glob("checkpoints/step-*/state.json"))
