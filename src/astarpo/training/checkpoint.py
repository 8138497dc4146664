"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    model/                 weights in fp32 and tokenizer, Hugging Face layout
    adapter/               in its place where a LoRA adapter alone is trained, peft's layout
    critic.safetensors     the critic's weights, where there is one
    running_values.safetensors  where values run along with the policy, see `running_values.py`
    optimizer.safetensors  what the optimiser keeps of every parameter that is trained
    state.json             steps done, a digest of each other file, and one of itself

Several processes write it together, and large models into several files (`models/shards.py`). All
tensors are whole in their files: whatever number of processes saved a checkpoint, any number goes
on from it, as from those of earlier versions.

Learning rate, order of the data and random numbers follow from the seed and the step, so the step
is all that is saved of them. Safetensors only: loading a checkpoint runs no code.
"""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch

from astarpo.config import TrainConfig
from astarpo.models.critic import restore_critic, save_critic
from astarpo.models.lora import save_adapter
from astarpo.models.policy import save_model
from astarpo.models.shards import TensorFiles, write_tensors
from astarpo.rundir.writer import RunLog
from astarpo.runtime.files import (
    DamagedFileError,
    file_digest,
    read_sealed_json,
    remove_directory,
    remove_leftovers,
    write_sealed_json,
)
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.together import shared_directory
from astarpo.training.learner import Learner
from astarpo.training.optimizers import restore_state, state_tensors
from astarpo.types import UserError

logger = logging.getLogger("astarpo")

# A checkpoint by time waits for this many times the seconds that the last one took to save.
_SPARING = 20


class CheckpointClock:
    """Says when a checkpoint is due: after so many steps, and after so many minutes.

    The checkpoints that are due by minutes alone take no more than a twentieth of the time.
    """

    def __init__(self, every_steps: int, every_minutes: float) -> None:
        self._every_steps = every_steps
        self._every_s = 60 * every_minutes
        self._saved_at = time.monotonic()
        self._took_s = 0.0

    def is_due(self, step: int) -> bool:
        """Whether to save after this step."""
        waited_s = time.monotonic() - self._saved_at
        return step % self._every_steps == 0 or waited_s >= max(
            self._every_s, _SPARING * self._took_s
        )

    def saved(self, took_s: float) -> None:
        """Notes that a checkpoint was just saved, in that many seconds."""
        self._saved_at, self._took_s = time.monotonic(), took_s


class Checkpoints:
    """The checkpoints of a run that is going on.

    Attributes:
        saved_step: The steps that the last checkpoint has behind it.
    """

    def __init__(
        self,
        run: RunLog,
        learner: Learner,
        config: TrainConfig,
        step: int,
        where: OneProcess,
    ) -> None:
        """Removes the checkpoints after the step that the run goes on from.

        All of the processes make one of these, and save at the same steps.
        """
        self.saved_step = step
        self._run = run
        self._learner = learner
        self._where = where
        self._keep = config.keep_checkpoints
        self._clock = CheckpointClock(config.checkpoint_every, config.checkpoint_minutes)
        where.first(lambda: tidy_checkpoints(run.path, step, self._keep))

    def is_due(self, step: int) -> bool:
        """Whether to save after this step."""
        return self._clock.is_due(step)

    def save(self, step: int) -> None:
        """Saves a checkpoint, whole or not at all, then removes all but the latest ones.

        Nothing is done if that step is saved already, or an update was given up halfway.
        """
        learner, where = self._learner, self._where
        if self.saved_step == step or learner.is_halfway:
            return
        started = time.monotonic()
        path = self._run.path / "checkpoints" / f"step-{step:06d}"
        with shared_directory(path, where) as temporary:
            _write_parts(temporary, learner, where)
            digests = _digests(temporary, where)
            if where.is_first:
                write_sealed_json(temporary / "state.json", {"step": step, "files": digests})
        where.first(self._note)
        self.saved_step = step
        self._clock.saved(time.monotonic() - started)

    def _note(self) -> None:
        _keep_latest(self._run.path, self._keep)
        self._run.log_checkpoint()


def _write_parts(folder: Path, learner: Learner, where: OneProcess) -> None:
    """Writes all that there is but `state.json`.

    A process that cannot write still gives the others its parts of every tensor, and fails in the
    end, so that none waits for it.
    """
    policy, critic, running = learner.policy, learner.critic, learner.running
    writes: list[Callable[[], object]] = []
    if policy.adapter:
        writes.append(lambda: save_adapter(folder / "adapter", policy, where))
    else:
        writes.append(lambda: save_model(folder / "model", policy, where))
    if critic is not None:
        writes.append(lambda: save_critic(folder, critic, where))
    if running is not None and where.is_first:
        writes.append(lambda: running.save(folder / "running_values.safetensors"))
    state = state_tensors(learner.optimizer, learner.parameters)
    writes.append(lambda: write_tensors(folder, "optimizer", state, where))
    failures = []
    for write in writes:
        try:
            write()
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _digests(folder: Path, where: OneProcess) -> dict[str, str]:
    """The digest of each file, by its path in the folder; each process computes some of them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if where.is_first else []
    names = where.agree([file.relative_to(folder).as_posix() for file in files])
    found: dict[str, str] = {}
    with where.together():
        found = {name: file_digest(folder / name) for name in names[where.rank :: where.size]}
    digests = dict(where.gather(list(found.items())))
    return {name: digests[name] for name in names}


def latest_checkpoint(
    run_path: Path, before: int | None = None, where: OneProcess | None = None
) -> tuple[Path, int] | None:
    """The last checkpoint that is whole, and its step; None where there is none.

    The log names those that are damaged, which are passed over.

    Args:
        run_path: The run directory.
        before: Only checkpoints of earlier steps count.
        where: The processes, which all ask and get the same answer; None for this one alone.
    """
    where = where or OneProcess(torch.device("cpu"))
    for step, path in where.agree(_checkpoints(run_path)[::-1]):
        if before is not None and step >= before:
            continue
        if reason := _damage(path, step, where):
            if where.is_first:
                logger.warning(f"{reason}; the checkpoint is passed over")
            continue
        return path, step
    return None


def tidy_checkpoints(run_path: Path, step: int, keep: int) -> None:
    """Removes the checkpoints after a step, all but so many before it, and leftovers of a kill."""
    remove_leftovers(run_path / "checkpoints")
    for later, path in _checkpoints(run_path):
        if later > step:
            remove_directory(path)
    _keep_latest(run_path, keep)


def restore(path: Path, learner: Learner) -> None:
    """Restores all but the policy from the checkpoint that the policy was loaded from.

    Each process reads its own parts of what is shared out.

    Raises:
        UserError: It does not belong to this model.
    """
    if learner.critic is not None:
        restore_critic(path, learner.critic)
    if learner.running is not None:
        learner.running.restore(path / "running_values.safetensors")
    known = learner.parameters.keys()
    with TensorFiles(path, "optimizer") as files:
        if unknown := sorted({key.rpartition(":")[0] for key in files} - known):
            raise UserError(f"{path}: has the optimiser's state of {unknown[0]}, not trained here")
        restore_state(learner.optimizer, learner.parameters, files)


def _keep_latest(run_path: Path, keep: int) -> None:
    for _, old in _checkpoints(run_path)[:-keep]:
        remove_directory(old)


def _checkpoints(run_path: Path) -> list[tuple[int, Path]]:
    """Steps and folders, in order; folders of other names are not checkpoints."""
    return sorted(
        (int(name[1]), path)
        for path in run_path.glob("checkpoints/step-*")
        if (name := re.fullmatch(r"step-(\d+)", path.name)) and path.is_dir()
    )


def _damage(path: Path, step: int, where: OneProcess) -> str | None:
    """In what a checkpoint is not as it was written, the same on all processes; None if it is.

    Each process looks at some of the files.
    """
    reason = None
    try:
        _verify(path, step, where)
    except DamagedFileError as error:
        reason = str(error)
    reasons = where.gather([reason] if reason else [])
    return reasons[0] if reasons else None


def _verify(path: Path, step: int, where: OneProcess) -> None:
    """Refuses a checkpoint that is not as it was written, with a `DamagedFileError`."""
    if not (path / "state.json").is_file():
        raise DamagedFileError(f"{path}: damaged: it has no state.json")
    state = read_sealed_json(path / "state.json")
    if state.get("step") != step:
        raise DamagedFileError(f"{path}: damaged: its state.json is that of another step")
    for name, digest in list(state["files"].items())[where.rank :: where.size]:
        if not (path / name).is_file():
            raise DamagedFileError(f"{path}: damaged: {name} is missing")
        if file_digest(path / name) != digest:
            raise DamagedFileError(f"{path / name}: damaged: it does not match its digest")
