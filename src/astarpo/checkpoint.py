"""Checkpoints: everything a run needs to go on as if it had never stopped.

    model/                 weights in fp32 and tokenizer, Hugging Face layout
    adapter/               in its place where a LoRA adapter alone is trained, peft's layout
    critic.safetensors     the critic's weights, where there is one
    optimizer.safetensors  what the optimiser keeps of every parameter that is trained
    state.json             steps done

Learning rate, data order and random numbers are functions of the seed and the step, so the step is
all the state they have. Safetensors only: loading one runs no code.
"""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from astarpo.critic import restore_critic, save_critic
from astarpo.files import atomic_directory, remove_directory
from astarpo.learner import Learner
from astarpo.lora import save_adapter
from astarpo.optimizers import restore_state, state_tensors
from astarpo.policy import save_model
from astarpo.types import UserError


def save_checkpoint(run_path: Path, step: int, learner: Learner, keep: int) -> None:
    """Writes a checkpoint whole or not at all, then removes all but the latest `keep`."""
    with atomic_directory(run_path / "checkpoints" / f"step-{step:06d}") as path:
        if learner.policy.adapter:
            save_adapter(path / "adapter", learner.policy)
        else:
            save_model(path / "model", learner.policy)
        if learner.critic is not None:
            save_critic(path / "critic.safetensors", learner.critic)
        state = state_tensors(learner.optimizer, learner.parameters)
        save_file(state, path / "optimizer.safetensors")
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
    """Restores critic and optimiser from a checkpoint; the policy was loaded from it before.

    Raises:
        UserError: It does not belong to this model.
    """
    if learner.critic is not None:
        restore_critic(path / "critic.safetensors", learner.critic)
    tensors = load_file(path / "optimizer.safetensors", device=str(learner.policy.device))
    known = learner.parameters.keys()
    if unknown := sorted({key.rpartition(":")[0] for key in tensors} - known):
        raise UserError(f"{path}: has the optimiser's state of {unknown[0]}, not trained here")
    restore_state(learner.optimizer, learner.parameters, tensors)


def _checkpoints(run_path: Path) -> list[Path]:
    return sorted(path.parent for path in run_path.glob("checkpoints/step-*/state.json"))
