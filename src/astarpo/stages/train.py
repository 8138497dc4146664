"""Stage 2: train the policy on-policy. A*-PO, and the other algorithms by the same loop.

Each step:  prompts -> completions (one each for A*-PO) -> verdicts r        (rollout.py)
            residual = beta_2 ln(pi / pi_ref) + V* - r              (algorithms/astar_po.py)
            minimise its square, mini-batch by mini-batch           (training/learner.py)
"""

import logging
from contextlib import ExitStack, closing
from typing import Any

from astarpo.config import TrainConfig
from astarpo.engines import choose_engine, open_engine
from astarpo.engines.base import Engine
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import tell_verdicts
from astarpo.models.lora import save_trained
from astarpo.models.ways import latest_way
from astarpo.reports.cards import write_model_card
from astarpo.reports.plots import plot_run
from astarpo.rollout import share_roll_out
from astarpo.rundir.trackers import Tracker, open_tracker
from astarpo.rundir.writer import RunLog
from astarpo.runtime.distributed import OneProcess, open_ranks
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.profiling import profile_steps
from astarpo.runtime.progress import Progress
from astarpo.runtime.stopping import StopRequested, StopSignal, stop_requested
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.stages.foresight import plan_stage
from astarpo.stages.prepared import preview_prompts
from astarpo.stages.ranks import call_facts, require_prompts_each
from astarpo.tasks.problem_set import write_problems
from astarpo.training.checkpoint import Checkpoints
from astarpo.training.health import HealthWatch
from astarpo.training.held_out import HeldOut
from astarpo.training.identity import input_digests
from astarpo.training.inputs import Given, Inputs, OnStep, open_inputs
from astarpo.training.metrics import answer_metrics, cost_metrics, run_summary, run_verdicts
from astarpo.training.opening import open_learner, require_parts
from astarpo.training.schedule import lr_scale, step_prompts
from astarpo.training.stage1 import rollout_metrics
from astarpo.types import Answer, EngineStopped, StopTraining, TrainingStopped

logger = logging.getLogger("astarpo")


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
    with open_ranks(config.device) as where, ExitStack() as held:
        with where.together():
            inputs = prepare(config, given)
            require_prompts_each(where, config.prompts_per_step, inputs)
            facts = call_facts(config) | input_digests(config, inputs)
        where.require_alike(facts)
        config = choose_engine(config)
        held.enter_context(where.locked(config.out))
        with where.together():
            run = RunLog(config.out, config, resume=config.resume)
        training = Training(config, inputs, run, where, given.on_step)
        where.first(lambda: _write_given(config, given))
        context = inputs.longest_prompt + inputs.text.max_new_tokens
        with where.together():
            engine = open_engine(config, training.policy, context, where)
        with engine, StopSignal():
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
        self,
        config: TrainConfig,
        inputs: Inputs,
        run: RunLog,
        where: OneProcess,
        on_step: OnStep | None = None,
    ) -> None:
        """Opens models and optimiser, new or as the last checkpoint has them."""
        self._config, self._inputs, self._run, self._where = config, inputs, run, where
        self._on_step, self._is_ended = on_step, False
        self._learner, self._step = open_learner(config, inputs, run, where)
        self.policy = self._learner.policy
        history = where.first(self._begin)
        self._checkpoints = Checkpoints(run, self._learner, config, self._step, where)
        self._watch = HealthWatch(config.prompts_per_step, config.health, history)
        self._held_out = HeldOut(inputs.held_out, config, inputs.text.sampling)
        self._evaluated = {row["step"] for row in where.agree(run.evaluations())}
        near = inputs.stage1 is not None and inputs.stage1.goes_on_after(history)
        self._stage1 = inputs.stage1 if near else None

    def _begin(self) -> list[dict[str, Any]]:
        """Begins to write the run, or to go on with it; returns the metrics so far."""
        self._run.require_steps(self._inputs.num_steps)
        self._run.require_inputs(input_digests(self._config, self._inputs))
        return self._run.begin(self._step)

    def go(self, engine: Engine) -> None:
        """Trains to the end; a signal to stop ends it with `StopRequested`, the step given up."""
        config, done, wanted = self._config, self._step, self._inputs.num_steps
        profiled = config.profile and self._where.is_first
        with (
            closing(self._open_tracker()) as tracker,
            Grader(config.grade_workers, config.grade_timeout, config.trust_reward) as grader,
            Progress("training: steps", wanted, done) as progress,
            profile_steps(config.out, wanted - done, enabled=profiled) as begin_step,
        ):
            self._evaluate_if_due(engine, grader)
            while not self._is_over():
                if self._where.any(stop_requested()):
                    raise StopRequested
                begin_step()
                clock = Stopwatch()
                answers = self._stage1_answers() or self._roll_out(engine, grader, clock)
                row = self._update(engine, answers, clock)
                if self._where.first(lambda row=row: self._show(row, tracker)):
                    self._is_ended = True
                self._watch.check(row)
                if self._where.agree(self._checkpoints.is_due(self._step)):
                    with self._where.together():
                        tracker.log_samples(self._step, answers)
                    self._checkpoints.save(self._step)
                self._evaluate_if_due(engine, grader)
                progress.advance(1, f"reward {row['reward']:.3f}  KL {row['kl']:.3f}")
            self._checkpoints.save(self._step)

    def _open_tracker(self) -> Tracker:
        """The first process shows how training goes."""
        name = self._config.log_to if self._where.is_first else "none"
        with self._where.together():
            return open_tracker(name, self._run.path, self._run.settings, self._step)

    def _stage1_answers(self) -> list[Answer] | None:
        """The value table's answers for the next step, where it is to learn from those."""
        answers = self._stage1.answers(self._step + 1) if self._stage1 else None
        if answers:
            self._where.first(lambda: self._run.log_samples(self._step + 1, answers))
        return answers

    def _roll_out(self, engine: Engine, grader: Grader, clock: Stopwatch) -> list[Answer]:
        """Answers of the current policy to the next step's prompts."""
        inputs, step, running = self._inputs, self._step + 1, self._learner.running
        weights_P = running.weights_P if running else None
        prompts, seeds = step_prompts(
            inputs.prompts, inputs.algorithm, self._config, step, weights_P
        )
        prompts = running.valued(prompts) if running else prompts
        vocabulary, sampling = inputs.vocabulary, inputs.text.sampling
        answers = share_roll_out(
            self._where, vocabulary, engine, grader, prompts, seeds, sampling, clock
        )
        self._where.first(lambda: self._run.log_samples(step, answers))
        return answers

    def _update(self, engine: Engine, answers: list[Answer], clock: Stopwatch) -> dict[str, Any]:
        """Updates the policy from a rollout, which ends the step; returns its metrics."""
        config, step = self._config, self._step + 1
        scale = lr_scale(step, self._inputs.num_steps, config)
        critic_only = step <= config.critic_warmup_steps and self._inputs.algorithm.needs_critic
        with self._where.alike(), engine.resting():
            losses = self._learner.update(answers, scale, clock, critic_only=critic_only)
        row = {"step": step, "lr": config.lr * scale, **losses, **answer_metrics(answers)}
        if self._inputs.stage1:
            row |= rollout_metrics(answers)
        row = self._where.agree(row)
        if self._stage1 and not self._stage1.goes_on_after([row]):
            self._stage1 = None
        try:
            with self._where.alike(), clock.phase("update"):
                row |= engine.sync(self.policy)
        finally:  # Even where the engine fails, the step is made.
            row |= cost_metrics(clock, row["tokens"])
            row |= {name: engine.facts.get(name) for name in ("name", "decoding")}
            row |= {"engine": row.pop("name"), "forward": latest_way(self.policy.model)}
            self._step = step
            self._where.first(lambda: self._run.log_metrics(row))
        return row

    def _evaluate_if_due(self, engine: Engine, grader: Grader) -> None:
        """Answers the held-out problems, unless they were answered at this step before a stop."""
        step, vocabulary = self._step, self._inputs.vocabulary
        due = step % self._config.eval_every == 0 or self._is_over()
        if self._inputs.held_out and due and step not in self._evaluated:
            found = self._held_out.evaluate(self._where, vocabulary, engine, grader)
            self._where.first(lambda: self._run.log_evaluation(step, found))
            self._evaluated.add(step)

    def _is_over(self) -> bool:
        """Whether all steps are done, the time is up, or the callback has ended it."""
        limit_s, seconds = self._config.max_seconds, self._where.agree(self._run.seconds)
        is_late = limit_s is not None and seconds >= limit_s
        return self._step >= self._inputs.num_steps or is_late or self._is_ended

    def _show(self, row: dict[str, Any], tracker: Tracker) -> bool:
        """Shows a step's metrics to tracker and callback; whether this one ends training."""
        tracker.log(self._step, row)
        if self._on_step is None:
            return False
        try:
            self._on_step(dict(row))
        except StopTraining as reason:
            logger.info(f"ended after step {self._step} by the callback {reason}".rstrip())
            return True
        return False

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
        self._where.first(self._show_all)
        save_trained(self._run.path, self.policy, self._config.model, self._where)
        self._where.first(lambda: write_model_card(self._run.path))
        return self.summarize(engine, completed=True)

    def _show_all(self) -> None:
        if rows := self._run.metrics():
            plot_run(self._run.path / "curves.png", rows)
            tell_verdicts("training", *run_verdicts(rows))

    def summarize(self, engine: Engine, *, completed: bool, **more: str) -> dict[str, Any]:
        """Writes the summary of the steps so far, which it returns."""

        def write() -> dict[str, Any]:
            summary = run_summary(self._run.metrics(), engine.facts, completed=completed) | more
            self._run.write_summary(summary)
            return summary

        return self._where.first(write)


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
        *plan_stage(
            "train",
            config,
            prompts,
            max_new_tokens=inputs.text.max_new_tokens,
            num_test=len(inputs.held_out),
        ),
    ]
