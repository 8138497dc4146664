"""Runs the stages that an experiment still lacks. A kill costs a part of one stage.

Stage 1 and training run in processes of their own: a process's peak memory covers all it has done.
"""

import json
import logging
import subprocess
import sys
from dataclasses import dataclass

import torch

from astarpo.config import EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.experiments.files import problem_files
from astarpo.experiments.plan import Experiment, Variant
from astarpo.experiments.results import is_finished, stage1_cost
from astarpo.rundir.reader import read_json
from astarpo.runtime.files import write_json
from astarpo.runtime.stopping import STOPPED_STATUS, StopSignal
from astarpo.stages.data import data
from astarpo.stages.evaluate import evaluate
from astarpo.types import UserError

logger = logging.getLogger("astarpo")

_POLL_S = 0.2


class StoppedError(Exception):
    """A signal asked to stop. The stage under way has saved its state; the same call goes on."""


@dataclass(frozen=True)
class Worker:
    """Runs the stages of an experiment in its folder.

    Attributes:
        experiment: Whose stages.
        lock: File descriptor of the folder's lock. Child processes get it too, so that the folder
            stays locked while one of them outlives this process.
    """

    experiment: Experiment
    lock: int

    def prepare(self) -> None:
        """Makes the problem files and scores the reference policy."""
        for config, _ in problem_files(self.experiment):
            if not config.out.exists():
                data(config)
        for variant in self.experiment.variants:
            for name, config in self.experiment.reference_configs(variant).items():
                _evaluate(config, f"reference on {name}")

    def finish_run(self, variant: Variant, seed: int) -> None:
        """Stage 1, training and evaluation of one run; those that are done are left out."""
        path = self.experiment.run_path(variant, seed)
        if not is_finished(read_json(path / "summary.json")):
            self._train(variant, seed)
        summary = read_json(path / "summary.json")
        if "reason" in summary:
            logger.warning(f"{variant.name}, seed {seed}, collapsed: {summary['reason']}")
            return
        for name, config in self.experiment.evaluate_configs(variant, seed).items():
            _evaluate(config, f"{variant.name}, seed {seed}, on {name}")

    def _train(self, variant: Variant, seed: int) -> None:
        config = self.experiment.train_config(variant, seed)
        if config.values is not None:
            stage1 = self.experiment.estimate_config(variant, seed)
            if not _is_estimated(stage1):
                self._run("estimate", stage1)
            if not _is_estimated(stage1):
                raise StoppedError
            cost = stage1_cost(stage1.out, config.values_samples)
            config = self.experiment.train_config(variant, seed, cost)
        self._run("train", config)
        if not is_finished(read_json(config.out / "summary.json")):
            raise StoppedError

    def _run(self, verb: str, config: EstimateConfig | TrainConfig) -> None:
        """Runs a verb in a process of its own, to which the first signal is handed on.

        Raises:
            StoppedError: A signal came.
            UserError: The verb failed; a training run that collapsed is no failure.
        """
        what = config.out.relative_to(self.experiment.out)
        file = self.experiment.out / "settings" / f"{'-'.join(what.parts)}.json"
        # Without -P, a user's random.py in the working directory would be taken for Python's. In a
        # session of its own, the child gets no signal from the terminal beside the one handed on.
        words = [sys.executable, "-P", "-m", "astarpo", verb, "--config", str(file)]
        words += ["--trust-reward", config.trust_reward] if config.trust_reward else []
        with StopSignal() as stop:
            write_json(file, json.loads(config.model_dump_json()))
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, pass_fds=[self.lock], start_new_session=True
            )
            try:
                status = _wait(child, stop)
            finally:
                child.kill()
                child.wait()
        if stop.requested or status == STOPPED_STATUS:
            raise StoppedError
        if status != 0 and "reason" not in read_json(config.out / "summary.json"):
            died = f"was killed by signal {-status} (out of memory?)" if status < 0 else "failed"
            raise UserError(
                f"{what}: astarpo {verb} --config {file} {died}, see above; the same call goes on"
            )


def _wait(child: subprocess.Popen, stop: StopSignal) -> int:
    told = False
    while True:
        try:
            return child.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            if stop.requested and not told:
                child.terminate()
                told = True


def _is_estimated(config: EstimateConfig) -> bool:
    manifest = read_json(config.out / "manifest.json")
    # `samples` is written once all samples are there, `num_problems` last of all.
    return "num_problems" in manifest and manifest.get("samples", 0) >= config.samples


def _evaluate(config: EvaluateConfig, what: str) -> None:
    if config.out.exists():
        return
    logger.info(f"scores of {what}:")
    evaluate(config)
    if torch.cuda.is_available():  # Training, in another process, needs the memory.
        torch.cuda.empty_cache()
