"""Train on-policy: stage 2 of A*-PO, and its rivals by the same loop.

each step:  prompts -> completions (one each for A*-PO) -> verdicts r
            residual = beta_2 ln(pi / pi_ref) + V^* - r      (algorithms/astar_po.py)
            minimise its square, mini-batch by mini-batch    (learner.py)
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from astarpo.checkpoint import latest_checkpoint, restore, save_checkpoint
from astarpo.config import TrainConfig
from astarpo.critic import load_critic
from astarpo.engines import open_engine
from astarpo.files import atomic_directory
from astarpo.grading import Grader
from astarpo.health import HealthWatch
from astarpo.held_out import HeldOut
from astarpo.inputs import Inputs, open_inputs
from astarpo.learner import Learner, lr_scale
from astarpo.lora import adapt, require_lora, save_merged
from astarpo.metrics import PHASES, answer_metrics, cost_metrics
from astarpo.optimizers import require_optimizer
from astarpo.outputs import check_folder
from astarpo.plots import plot_run
from astarpo.policy import Policy, load_policy, pick_device, save_model
from astarpo.profiling import StepProfiler
from astarpo.progress import Progress
from astarpo.rollout import Stopwatch, roll_out
from astarpo.runlog import RunLog
from astarpo.seeding import derive_seed, epoch_stream
from astarpo.stopping import StopSignal
from astarpo.tasks.reward import reward_file
from astarpo.trackers import open_tracker, require_tracker
from astarpo.types import STATUSES, TrainingStopped
from astarpo.verdicts import tell_verdicts

logger = logging.getLogger("astarpo")


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains a policy and writes its run directory (see `runlog.py`).

    Returns:
        What `summary.json` says; `completed` is False where a signal stopped the run.

    Raises:
        UserError: An input is wrong or does not fit the value table.
        TrainingStopped: Training went wrong; the message says what to do.
    """
    inputs, run = prepare(config)
    prompts, values, num_steps = inputs.prompts, inputs.values, inputs.num_steps
    steps_done, learner = _open_learner(config, inputs, run)
    policy, algorithm, sampling = learner.policy, inputs.algorithm, inputs.text.sampling
    held_out = HeldOut(inputs.held_out, config, sampling) if inputs.held_out else None

    engine = open_engine(config, policy)
    order_seed = derive_seed(config.seed, "order")
    watch = HealthWatch(config.prompts_per_step, config.health, run.begin(steps_done))
    tracker = open_tracker(config.log_to, run.path, run.settings, steps_done)
    save = partial(save_checkpoint, run.path, learner=learner, keep=config.keep_checkpoints)

    with (
        Grader(config.grade_workers, config.grade_timeout, config.reward) as grader,
        Progress("training: steps", num_steps, steps_done) as progress,
        StopSignal() as stop,
        _reason_kept(run),
        _open_profiler(config, learner, num_steps - steps_done) as profiler,
    ):
        saved = steps_done
        if held_out and not run.evaluations():
            run.log_evaluation(0, held_out.evaluate(policy, engine, grader))
        while steps_done < num_steps and not _out_of_time(run, config):
            step, clock = steps_done + 1, profiler.step(Stopwatch())
            chosen = epoch_stream(order_seed, step - 1, len(prompts), config.prompts_per_step)
            chosen = [i for i in chosen for _ in range(algorithm.samples_per_prompt)]
            seeds = [derive_seed(config.seed, "stage2", step, k) for k in range(len(chosen))]
            answers = roll_out(
                policy, engine, grader, [prompts[i] for i in chosen], seeds, sampling, clock
            )
            if stop.requested:  # Sampling is a function of the step: nothing is lost with it.
                break
            step_values = [values[i] for i in chosen] if values else None
            run.log_samples(step, answers, step_values)
            scale = lr_scale(step, num_steps, config)
            critic_only = step <= config.critic_warmup_steps and algorithm.needs_critic
            losses = learner.update(answers, step_values, scale, clock, critic_only=critic_only)
            counts = answer_metrics(answers)
            row = {"step": step, "lr": config.lr * scale, **losses, **counts}
            row |= cost_metrics(clock, counts["tokens"])
            run.log_metrics(row)
            tracker.log(step, row)
            watch.check(row)
            steps_done = step
            last = step == num_steps or _out_of_time(run, config)
            if held_out and (last or step % config.eval_every == 0):
                run.log_evaluation(step, held_out.evaluate(policy, engine, grader))
            if step % config.checkpoint_every == 0:
                tracker.log_samples(step, answers)
                save(step)
                saved = step
            progress.advance(1, f"reward {row['reward']:.3f}  KL {row['kl']:.3f}")
        if steps_done > saved:
            save(steps_done)
    tracker.close()
    completed = steps_done == num_steps or _out_of_time(run, config)
    return _finish(run, policy, config.model, completed=completed)


def prepare(config: TrainConfig) -> tuple[Inputs, RunLog]:
    """Reads and checks what `train` needs; loads no weights and writes nothing.

    Raises:
        UserError: An input is wrong or does not fit the value table, or `out` is in use.
    """
    given = [config.model, config.problems, config.values, config.eval_problems]
    given.append(reward_file(config.reward))
    check_folder(config.out, given, kind="a run directory", marks=("config.json",))
    require_parts(config)
    run = RunLog(config.out, config, resume=config.resume)
    return open_inputs(config), run


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


def _open_learner(config: TrainConfig, inputs: Inputs, run: RunLog) -> tuple[int, Learner]:
    """Models and optimiser as the last checkpoint has them, or new; and the steps behind them."""
    checkpoint, steps_done = latest_checkpoint(run.path) or (None, 0)
    device = pick_device(config.device)
    policy, reference = _open_policies(config, checkpoint, device)
    critic = load_critic(config.model, device) if inputs.algorithm.needs_critic else None
    learner = Learner(policy, reference, inputs.algorithm, config, inputs.text.temperature, critic)
    if checkpoint:
        restore(checkpoint, learner)
    return steps_done, learner


def _open_policies(
    config: TrainConfig, checkpoint: Path | None, device: torch.device
) -> tuple[Policy, Policy]:
    """The policy, new or of a checkpoint, and its reference."""
    if config.lora_rank is not None:
        base = load_policy(config.model, device)
        return adapt(base, config, checkpoint / "adapter" if checkpoint else None)
    reference = load_policy(config.model, device)
    start_from = str(checkpoint / "model") if checkpoint else config.model
    return load_policy(start_from, device, trainable=True), reference


def _open_profiler(config: TrainConfig, learner: Learner, num_steps: int) -> StepProfiler:
    models = [learner.policy.model, learner.reference.model]
    models += [learner.critic] if learner.critic is not None else []
    return StepProfiler(config.out, models, num_steps, enabled=config.profile)


def _out_of_time(run: RunLog, config: TrainConfig) -> bool:
    return config.max_seconds is not None and run.seconds >= config.max_seconds


def _finish(run: RunLog, policy: Policy, name: str, *, completed: bool) -> dict[str, Any]:
    """Writes curves and summary, and the policy, which began as `name`, once training is over."""
    rows = run.metrics()
    if rows:
        plot_run(run.path / "curves.png", rows)
    if completed:
        if policy.adapter:
            save_merged(run.path, policy, name)
        else:
            with atomic_directory(run.path / "model") as path:
                save_model(path, policy)
    else:
        logger.warning(f"stopped after {len(rows)} steps; go on with --resume")
    if rows:
        counts = Counter({s: sum(row[f"status_{s}"] for row in rows) for s in STATUSES})
        truncated = sum(
            row["truncated_share"] * sum(row[f"status_{s}"] for s in STATUSES) for row in rows
        )
        tell_verdicts("training", counts, truncated / counts.total())
    summary = _summary(rows, completed=completed)
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
        "peak_memory_gib": max((row["peak_memory_gib"] for row in rows), default=None),
    }
