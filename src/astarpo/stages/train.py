"""Train on-policy: stage 2 of A*-PO, and its rivals by the same loop.

each step:  prompts -> completions (one each for A*-PO) -> verdicts r
            residual = beta_2 ln(pi / pi_ref) + V^* - r      (algorithms/astar_po.py)
            minimise its square, mini-batch by mini-batch    (learner.py)
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from astarpo.config import TrainConfig
from astarpo.engines import open_engine
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import tell_verdicts
from astarpo.models.critic import load_critic
from astarpo.models.lora import adapt, require_lora, save_merged
from astarpo.models.policy import Policy, load_policy, pick_device, save_model
from astarpo.reports.plots import plot_run
from astarpo.rollout import roll_out
from astarpo.rundir.trackers import open_tracker, require_tracker
from astarpo.rundir.writer import RunLog
from astarpo.runtime.files import atomic_directory
from astarpo.runtime.locks import folder_lock
from astarpo.runtime.memory import peak_memory_gib
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.profiling import profile_steps
from astarpo.runtime.progress import Progress
from astarpo.runtime.seeding import derive_seed, epoch_stream
from astarpo.runtime.stopping import StopRequested, StopSignal
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.checkpoint import (
    CheckpointClock,
    latest_checkpoint,
    restore,
    save_checkpoint,
    tidy_checkpoints,
)
from astarpo.training.health import HealthWatch
from astarpo.training.held_out import HeldOut
from astarpo.training.identity import input_digests
from astarpo.training.inputs import Inputs, open_inputs
from astarpo.training.learner import Learner, lr_scale
from astarpo.training.metrics import PHASES, answer_metrics, cost_metrics
from astarpo.training.optimizers import require_optimizer
from astarpo.types import STATUSES, Answer, TrainingStopped, UserError

logger = logging.getLogger("astarpo")


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains a policy and writes its run directory (see `runlog.py`).

    Returns:
        What `summary.json` says; `completed` is False where a signal stopped the run.

    Raises:
        UserError: An input is wrong or does not fit the value table.
        TrainingStopped: Training went wrong; the message says what to do.
    """
    inputs = prepare(config)
    with folder_lock(config.out):
        run = RunLog(config.out, config, resume=config.resume)
        training = Training(config, inputs, run)
        with _reason_kept(run), StopSignal():
            try:
                training.go()
            except StopRequested:
                training.save_if_whole()
                return _stopped(training)
        return _finish(training)


class Training:
    """A run between its first step and its last.

    Attributes:
        steps_done: Whole steps, with their metrics on disk.
        saved: Those that the last checkpoint has behind it.
        num_steps: Of the whole run.
    """

    def __init__(self, config: TrainConfig, inputs: Inputs, run: RunLog) -> None:
        """Opens models and optimiser as the last checkpoint has them, or new.

        Raises:
            UserError: An input does not fit, or the run cannot be gone on with.
        """
        self.config, self.inputs, self.run = config, inputs, run
        checkpoint, self.steps_done = _find_checkpoint(run)
        self.learner = _open_learner(config, inputs, checkpoint)
        self.policy = self.learner.policy
        self._held_out = None
        if inputs.held_out:
            self._held_out = HeldOut(inputs.held_out, config, inputs.text.sampling)
        self.num_steps = inputs.num_steps
        run.require_steps(self.num_steps)
        run.require_inputs(input_digests(config, inputs))
        self._engine = open_engine(config, self.policy)
        history = run.begin(self.steps_done)
        tidy_checkpoints(run.path, self.steps_done, config.keep_checkpoints)
        self._watch = HealthWatch(config.prompts_per_step, config.health, history)
        self._evaluated = {row["step"] for row in run.evaluations()}
        self.saved = self.steps_done
        self._clock = CheckpointClock(config.checkpoint_every, config.checkpoint_minutes)

    def go(self) -> None:
        """Trains to the end, and saves what is trained.

        Raises:
            TrainingStopped: Training went wrong.
            StopRequested: A signal asks to stop; the step that was going on is given up.
        """
        config, run = self.config, self.run
        tracker = open_tracker(config.log_to, run.path, run.settings, self.steps_done)
        num_left = self.num_steps - self.steps_done
        with (
            closing(tracker),
            Grader(config.grade_workers, config.grade_timeout, config.reward) as grader,
            Progress("training: steps", self.num_steps, self.steps_done) as progress,
            profile_steps(config.out, num_left, enabled=config.profile) as begin_step,
        ):
            self._evaluate_if_due(grader)
            while not self.is_over():
                begin_step()
                row, answers = self._step(grader, Stopwatch())
                tracker.log(self.steps_done, row)
                self._watch.check(row)
                if self._clock.is_due(self.steps_done):
                    tracker.log_samples(self.steps_done, answers)
                    self.save_if_whole()
                self._evaluate_if_due(grader)
                progress.advance(1, f"reward {row['reward']:.3f}  KL {row['kl']:.3f}")
            self.save_if_whole()

    def is_over(self) -> bool:
        """Whether all steps are done, or the time is up."""
        limit_s = self.config.max_seconds
        return self.steps_done >= self.num_steps or (
            limit_s is not None and self.run.seconds >= limit_s
        )

    def save_if_whole(self) -> None:
        """Saves a checkpoint, unless there is one or an update was given up halfway."""
        if self.saved == self.steps_done or self.learner.is_halfway:
            return
        started = time.monotonic()
        save_checkpoint(self.run.path, self.steps_done, self.learner, self.config.keep_checkpoints)
        self.run.log_checkpoint()
        self.saved = self.steps_done
        self._clock.saved(time.monotonic() - started)

    def _step(self, grader: Grader, clock: Stopwatch) -> tuple[dict[str, Any], list[Answer]]:
        """One rollout and the updates from it; returns its metrics and its answers."""
        config, inputs, algorithm = self.config, self.inputs, self.inputs.algorithm
        step = self.steps_done + 1
        order_seed = derive_seed(config.seed, "order")
        chosen = epoch_stream(order_seed, step - 1, len(inputs.prompts), config.prompts_per_step)
        chosen = [i for i in chosen for _ in range(algorithm.samples_per_prompt)]
        seeds = [derive_seed(config.seed, "stage2", step, k) for k in range(len(chosen))]
        prompts = [inputs.prompts[i] for i in chosen]
        sampling = inputs.text.sampling
        answers = roll_out(self.policy, self._engine, grader, prompts, seeds, sampling, clock)
        values = [inputs.values[i] for i in chosen] if inputs.values else None
        self.run.log_samples(step, answers, values)
        scale = lr_scale(step, self.num_steps, config)
        critic_only = step <= config.critic_warmup_steps and algorithm.needs_critic
        losses = self.learner.update(answers, values, scale, clock, critic_only=critic_only)
        counts = answer_metrics(answers)
        row = {"step": step, "lr": config.lr * scale, **losses, **counts}
        row |= cost_metrics(clock, counts["tokens"])
        self.run.log_metrics(row)
        self.steps_done = step
        return row, answers

    def _evaluate_if_due(self, grader: Grader) -> None:
        """Answers the held-out problems, unless they were answered at this step before a stop."""
        step = self.steps_done
        due = step % self.config.eval_every == 0 or self.is_over()
        if self._held_out and due and step not in self._evaluated:
            scores = self._held_out.evaluate(self.policy, self._engine, grader)
            self.run.log_evaluation(step, scores)
            self._evaluated.add(step)


def prepare(config: TrainConfig) -> Inputs:
    """Reads and checks what `train` needs; loads no weights and writes nothing.

    Raises:
        UserError: An input is wrong or does not fit the value table, or `out` is in use.
    """
    given = [config.model, config.problems, config.values, config.eval_problems]
    given.append(reward_file(config.reward))
    check_folder(config.out, given, kind="a run directory", marks=("config.json",))
    require_parts(config)
    RunLog(config.out, config, resume=config.resume)
    return open_inputs(config)


def require_parts(config: TrainConfig) -> None:
    """Checks that what a training needs beside its inputs is there.

    Raises:
        UserError: A library or a device is not, or settings of the adapter do not fit.
    """
    require_tracker(config.log_to)
    require_optimizer(config.optimizer)
    require_lora(config)
    pick_device(config.device)


@contextmanager
def _reason_kept(run: RunLog) -> Iterator[None]:
    """Writes into the summary why training had to stop, should it."""
    try:
        yield
    except TrainingStopped as error:
        run.write_summary(_summary(run.metrics(), completed=False) | {"reason": str(error)})
        raise


def _find_checkpoint(run: RunLog) -> tuple[Path | None, int]:
    """The checkpoint to go on from and the steps behind it; none and 0 for a run from its start.

    The last one before any step whose metrics are lost: it is then made again.

    Raises:
        UserError: There were checkpoints, and none is left.
    """
    missing = run.first_missing_step()
    found = latest_checkpoint(run.path, before=missing) or latest_checkpoint(run.path)
    if found:
        return found
    if run.has_checkpoint:
        raise UserError(
            f"{run.path}: cannot resume: no whole checkpoint is left; put the checkpoints back, or "
            "begin anew with another --out"
        )
    if run.metrics():
        logger.warning(f"{run.path}: has no checkpoint yet; begins again at step 1")
    return None, 0


def _open_learner(config: TrainConfig, inputs: Inputs, checkpoint: Path | None) -> Learner:
    """Models and optimiser as a checkpoint has them, or new."""
    device = pick_device(config.device)
    policy, reference = _open_policies(config, checkpoint, device)
    critic = load_critic(config.model, device) if inputs.algorithm.needs_critic else None
    learner = Learner(policy, reference, inputs.algorithm, config, inputs.text.temperature, critic)
    if checkpoint:
        restore(checkpoint, learner)
    return learner


def _open_policies(
    config: TrainConfig, checkpoint: Path | None, device: torch.device
) -> tuple[Policy, Policy]:
    """The policy, new or of a checkpoint, and its reference."""
    if config.lora_rank is not None:
        base = load_policy(config.model, device)
        return adapt(base, config, checkpoint / "adapter" if checkpoint else None)
    reference = load_policy(config.model, device)
    start_from = str(checkpoint / "model") if checkpoint else config.model
    policy = load_policy(start_from, device, trainable=True)
    # One tokenizer: what is saved of one that was itself saved and loaded is not the same bytes.
    return replace(policy, tokenizer=reference.tokenizer), reference


def _stopped(training: Training) -> dict[str, Any]:
    """Writes the summary of a run that a signal has stopped."""
    rows = training.run.metrics()
    logger.warning(f"stopped after {training.saved} steps; --resume goes on")
    summary = _summary(rows, completed=False)
    training.run.write_summary(summary)
    return summary


def _finish(training: Training) -> dict[str, Any]:
    """Writes curves, the policy and the summary."""
    run, policy = training.run, training.policy
    rows = run.metrics()
    if rows:
        plot_run(run.path / "curves.png", rows)
    if policy.adapter:
        save_merged(run.path, policy, training.config.model)
    else:
        with atomic_directory(run.path / "model") as path:
            save_model(path, policy)
    if rows:
        counts: Counter[str] = Counter(
            {s: sum(row[f"status_{s}"] for row in rows) for s in STATUSES}
        )
        truncated = sum(
            row["truncated_share"] * sum(row[f"status_{s}"] for s in STATUSES) for row in rows
        )
        tell_verdicts("training", counts, truncated / counts.total())
    summary = _summary(rows, completed=True)
    run.write_summary(summary)
    return summary


def _summary(rows: Sequence[dict[str, Any]], *, completed: bool) -> dict[str, Any]:
    last = rows[-1] if rows else {"step": 0}
    return {
        "completed": completed,
        "steps": last["step"],
        "reward": last.get("reward"),
        "kl": last.get("kl"),
        "tokens": sum(row["tokens"] for row in rows),
        "seconds": {phase: sum(row[f"seconds_{phase}"] for row in rows) for phase in PHASES},
        "peak_memory_gib": max((row["peak_memory_gib"] for row in rows), default=peak_memory_gib()),
    }
