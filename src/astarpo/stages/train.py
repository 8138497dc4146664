"""Stage 2: train the policy on-policy. A*-PO, and the other algorithms by the same loop.

Each step:  prompts -> completions (one each for A*-PO) -> verdicts r        (rollout.py)
            residual = beta_2 ln(pi / pi_ref) + V* - r              (algorithms/astar_po.py)
            minimise its square, mini-batch by mini-batch           (training/learner.py)
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from astarpo.config import TrainConfig
from astarpo.engines import choose_engine, open_engine
from astarpo.engines.base import Engine
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import tell_verdicts
from astarpo.models.lora import save_trained
from astarpo.models.policy import pick_device
from astarpo.models.ways import latest_way
from astarpo.reports.cards import write_model_card
from astarpo.reports.plots import plot_run
from astarpo.rollout import roll_out
from astarpo.rundir.trackers import open_tracker
from astarpo.rundir.writer import RunLog
from astarpo.runtime.locks import folder_lock
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.profiling import profile_steps
from astarpo.runtime.progress import Progress
from astarpo.runtime.stopping import StopRequested, StopSignal, stop_requested
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.stages.prepared import preview_prompts
from astarpo.tasks.problem_set import write_problems
from astarpo.training.checkpoint import Checkpoints
from astarpo.training.health import HealthWatch
from astarpo.training.held_out import HeldOut
from astarpo.training.identity import input_digests
from astarpo.training.inputs import Inputs, open_inputs
from astarpo.training.metrics import answer_metrics, cost_metrics, run_summary, run_verdicts
from astarpo.training.opening import open_learner, require_parts
from astarpo.training.schedule import lr_scale, step_prompts
from astarpo.training.sharding import OneProcess
from astarpo.training.stage1 import rollout_metrics
from astarpo.types import Answer, EngineStopped, Problem, StopTraining, TrainingStopped

logger = logging.getLogger("astarpo")


OnStep = Callable[[dict[str, Any]], object]


class Given(NamedTuple):
    """What a caller in Python gives beside a config.

    Attributes:
        problems: What `config.problems` will hold, which is then written.
        eval_problems: Likewise.
        on_step: Called with each step's metrics, once they are on disk.
    """

    problems: Sequence[Problem] | None = None
    eval_problems: Sequence[Problem] | None = None
    on_step: OnStep | None = None


def train(config: TrainConfig, given: Given | None = None) -> dict[str, Any]:
    """Trains a policy and writes its run directory (see `rundir/writer.py`).

    Args:
        config: Its settings.
        given: What there is beside them.

    Returns:
        What `summary.json` says; `completed` is False where a signal stopped the run.

    Raises:
        UserError: An input is wrong or does not fit the value table.
        TrainingStopped: Training went wrong; the message says what to do.
    """
    given = given or Given()
    inputs = prepare(config, given)
    config = choose_engine(config)
    with folder_lock(config.out):
        run = RunLog(config.out, config, resume=config.resume)
        training = Training(config, inputs, run, given.on_step)
        _write_given(config, given)
        context = inputs.longest_prompt + inputs.text.max_new_tokens
        with open_engine(config, training.policy, context) as engine, StopSignal():
            try:
                training.go(engine)
            except StopRequested:
                return training.stop(engine)
            except TrainingStopped as error:
                if isinstance(error, EngineStopped):
                    training.save()  # the policy is whole
                training.summarize(engine, completed=False, reason=str(error))
                raise
        return training.finish(engine)


def _write_given(config: TrainConfig, given: Given) -> None:
    """Writes the problem files of problems that were given in memory."""
    if given.problems is not None:
        write_problems(config.problems, given.problems)
    if given.eval_problems is not None and config.eval_problems is not None:
        write_problems(config.eval_problems, given.eval_problems)


def prepare(config: TrainConfig, given: Given | None = None) -> Inputs:
    """Reads and checks what `train` needs; loads no weights and writes nothing.

    Raises:
        UserError: An input is wrong or does not fit the value table, or `out` is in use.
    """
    paths = [config.model, config.problems, config.values, config.eval_problems]
    paths += [reward_file(config.trust_reward)]
    check_folder(config.out, paths, kind="a run directory", marks=("config.json",))
    require_parts(config)
    RunLog(config.out, config, resume=config.resume)
    given = given or Given()
    return open_inputs(config, given.problems, given.eval_problems)


class Training:
    """A run between its first step and its last; `policy` is what it trains."""

    def __init__(
        self, config: TrainConfig, inputs: Inputs, run: RunLog, on_step: OnStep | None = None
    ) -> None:
        """Opens models and optimiser, new or as the last checkpoint has them."""
        self._config, self._inputs, self._run = config, inputs, run
        self._on_step, self._is_ended = on_step, False
        self._where = OneProcess(pick_device(config.device))
        self._learner, self._step = open_learner(config, inputs, run, self._where.device)
        self.policy = self._learner.policy
        run.require_steps(inputs.num_steps)
        run.require_inputs(input_digests(config, inputs))
        history = run.begin(self._step)
        self._checkpoints = Checkpoints(run, self._learner, config, self._step)
        self._watch = HealthWatch(config.prompts_per_step, config.health, history)
        self._held_out = HeldOut(inputs.held_out, config, inputs.text.sampling)
        self._evaluated = {row["step"] for row in run.evaluations()}
        near = inputs.stage1 is not None and inputs.stage1.goes_on_after(history)
        self._stage1 = inputs.stage1 if near else None

    def go(self, engine: Engine) -> None:
        """Trains to the end; a signal to stop ends it with `StopRequested`, the step given up."""
        config, run, done, wanted = self._config, self._run, self._step, self._inputs.num_steps
        with (
            closing(open_tracker(config.log_to, run.path, run.settings, done)) as tracker,
            Grader(config.grade_workers, config.grade_timeout, config.trust_reward) as grader,
            Progress("training: steps", wanted, done) as progress,
            profile_steps(config.out, wanted - done, enabled=config.profile) as begin_step,
        ):
            self._evaluate_if_due(engine, grader)
            while not self._is_over():
                if self._where.any(stop_requested()):
                    raise StopRequested
                begin_step()
                clock = Stopwatch()
                answers = self._stage1_answers() or self._roll_out(engine, grader, clock)
                row = self._update(engine, answers, clock)
                tracker.log(self._step, row)
                self._call_back(row)
                self._watch.check(row)
                if self._where.agree(self._checkpoints.is_due(self._step)):
                    tracker.log_samples(self._step, answers)
                    self._checkpoints.save(self._step)
                self._evaluate_if_due(engine, grader)
                progress.advance(1, f"reward {row['reward']:.3f}  KL {row['kl']:.3f}")
            self._checkpoints.save(self._step)

    def _stage1_answers(self) -> list[Answer] | None:
        """The value table's answers for the next step, where it is to learn from those."""
        answers = self._stage1.answers(self._step + 1) if self._stage1 else None
        if answers and self._where.is_first:
            self._run.log_samples(self._step + 1, answers)
        return answers

    def _roll_out(self, engine: Engine, grader: Grader, clock: Stopwatch) -> list[Answer]:
        """Answers of the current policy to the next step's prompts."""
        inputs, step, running = self._inputs, self._step + 1, self._learner.running
        weights_P = running.weights_P if running else None
        prompts, seeds = step_prompts(
            inputs.prompts, inputs.algorithm, self._config, step, weights_P
        )
        prompts = running.valued(prompts) if running else prompts
        mine = self._where.share([len(prompt.token_ids) for prompt in prompts])
        prompts, seeds = [prompts[i] for i in mine], [seeds[i] for i in mine]
        vocabulary, sampling = inputs.vocabulary, inputs.text.sampling
        answers = roll_out(vocabulary, engine, grader, prompts, seeds, sampling, clock)
        answers = self._where.gather(answers)
        if self._where.is_first:
            self._run.log_samples(step, answers)
        return answers

    def _update(self, engine: Engine, answers: list[Answer], clock: Stopwatch) -> dict[str, Any]:
        """Updates the policy from a rollout, which ends the step; returns its metrics."""
        config, step = self._config, self._step + 1
        scale = lr_scale(step, self._inputs.num_steps, config)
        critic_only = step <= config.critic_warmup_steps and self._inputs.algorithm.needs_critic
        with engine.resting():
            losses = self._learner.update(answers, scale, clock, critic_only=critic_only)
        row = {"step": step, "lr": config.lr * scale, **losses, **answer_metrics(answers)}
        if self._inputs.stage1:
            row |= rollout_metrics(answers)
            if self._stage1 and not self._stage1.goes_on_after([row]):
                self._stage1 = None
        try:
            with clock.phase("update"):
                row |= engine.sync(self.policy)
        finally:  # Even where the engine fails, the step is made.
            row |= cost_metrics(clock, row["tokens"])
            row |= {name: engine.facts.get(name) for name in ("name", "decoding")}
            row |= {"engine": row.pop("name"), "forward": latest_way(self.policy.model)}
            self._run.log_metrics(row)
            self._step = step
        return row

    def _evaluate_if_due(self, engine: Engine, grader: Grader) -> None:
        """Answers the held-out problems, unless they were answered at this step before a stop."""
        step, vocabulary = self._step, self._inputs.vocabulary
        due = step % self._config.eval_every == 0 or self._is_over()
        if self._inputs.held_out and due and step not in self._evaluated:
            self._run.log_evaluation(step, self._held_out.evaluate(vocabulary, engine, grader))
            self._evaluated.add(step)

    def _is_over(self) -> bool:
        """Whether all steps are done, the time is up, or the callback has ended it."""
        limit_s, seconds = self._config.max_seconds, self._where.agree(self._run.seconds)
        is_late = limit_s is not None and seconds >= limit_s
        return self._step >= self._inputs.num_steps or is_late or self._is_ended

    def _call_back(self, row: dict[str, Any]) -> None:
        """Shows a step's metrics to the caller's callback, which may end training."""
        if self._on_step is None:
            return
        asked = False
        try:
            self._on_step(dict(row))
        except StopTraining as reason:
            logger.info(f"ended after step {self._step} by the callback {reason}".rstrip())
            asked = True
        self._is_ended = self._where.any(asked)

    def save(self) -> None:
        """Saves a checkpoint of the last step that was made."""
        self._checkpoints.save(self._step)

    def stop(self, engine: Engine) -> dict[str, Any]:
        """Saves a run that a signal has stopped; returns its summary."""
        self.save()
        logger.warning(f"stopped after {self._checkpoints.saved_step} steps; --resume goes on")
        return self.summarize(engine, completed=False)

    def finish(self, engine: Engine) -> dict[str, Any]:
        """Writes curves, the policy and the summary, which it returns."""
        if rows := self._run.metrics():
            plot_run(self._run.path / "curves.png", rows)
            tell_verdicts("training", *run_verdicts(rows))
        save_trained(self._run.path, self.policy, self._config.model)
        write_model_card(self._run.path)
        return self.summarize(engine, completed=True)

    def summarize(self, engine: Engine, *, completed: bool, **more: str) -> dict[str, Any]:
        """Writes the summary of the steps so far, which it returns."""
        summary = run_summary(self._run.metrics(), engine.facts, completed=completed) | more
        self._run.write_summary(summary)
        return summary


def preview(config: TrainConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    inputs = prepare(config)
    prompts = inputs.prompts
    mean = "" if prompts.values_P is None else f", mean V* {prompts.values_P.mean():.3f}"
    return [
        f"{len(prompts)} problems after filter {config.filter}{mean}",
        f"{inputs.num_steps} steps of {config.prompts_per_step} prompts, "
        f"{inputs.algorithm.samples_per_prompt} samples each, {config.minibatches} updates a step",
        *preview_prompts(inputs.vocabulary, prompts, len(inputs.problems)),
    ]
