"""One contender of `against_trl.py`, in a process of its own for its peak of memory.

    python benchmarks/trl_contender.py SPEC.json RESULT.json

Both sides report the same: seconds by the clock from one step's end to the next, evaluations left
out, and how they divide into phases. `generate` is sampling (TRL: the calls of `model.generate`),
`verify` decoding and judging, `reference` the reference's log-probs, `update` all from there to the
optimiser's step, and `other` what is left.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch
from torch import Tensor

from astarpo.config import EstimateConfig, TrainConfig
from astarpo.config.documents import find_recipe, read_document, settings_for
from astarpo.engines.base import Sampling
from astarpo.engines.hf import HFEngine
from astarpo.grading.grader import Grader
from astarpo.models.policy import Policy, load_policy
from astarpo.models.prompts import fit_prompts
from astarpo.rundir.writer import RunLog
from astarpo.runtime.devices import pick_device
from astarpo.runtime.distributed import OneProcess
from astarpo.stages.estimate import estimate
from astarpo.stages.train import train
from astarpo.tasks.problem_set import read_problems
from astarpo.training.held_out import HeldOut
from astarpo.training.metrics import PHASES
from astarpo.training.schedule import lr_scale
from astarpo.types import STATUSES, Prompt

ADAM_BETAS = (0.9, 0.999)

# Prompts in a batch of TRL's stage 1, 8 samples each: what it is fastest with.
TRL_STAGE1_PROMPTS = {"cpu": 32, "cuda": 128}

Spec = dict[str, Any]


class Recorder:
    """A clock that can be stopped, and what happened in each span of it.

    Attributes:
        phases: Seconds of each phase in this span.
        stage1: The span of stage 1, where there was one.
        steps: A span for each step: seconds, sequences and tokens generated, seconds by phase.
        curve: Held-out rewards, with what had been spent by then, stage 1 included.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._paused = 0.0
        self.stage1: dict[str, Any] | None = None
        self.steps: list[dict[str, Any]] = []
        self.curve: dict[str, list[float]] = {"step": [], "seconds": [], "tokens": [], "reward": []}
        self.begin()

    def begin(self) -> None:
        """Starts a span."""
        self.phases: dict[str, float] = {}
        self._sequences = self._tokens = 0
        self._started = self.now()

    def end(self) -> dict[str, Any]:
        """What the span was, and starts the next."""
        seconds = self.now() - self._started
        other = seconds - sum(self.phases.values())
        span = {
            "seconds": seconds,
            "sequences": self._sequences,
            "tokens": self._tokens,
            "phases": {**self.phases, "other": other},
        }
        self.begin()
        return span

    def now(self) -> float:
        """Seconds, without those that passed in `pause`."""
        if self._on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - self._paused

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stops the clock."""
        before = self.now()
        try:
            yield
        finally:
            self._paused += self.now() - before

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the seconds of a block to a phase."""
        before = self.now()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + self.now() - before

    def count(self, num_sequences: int, num_tokens: int) -> None:
        """Adds what was generated."""
        self._sequences += num_sequences
        self._tokens += num_tokens

    def evaluated(self, reward: float) -> None:
        """Notes a held-out reward; training begins after the first."""
        spans = self.steps + ([self.stage1] if self.stage1 else [])
        self.curve["step"].append(len(self.steps))
        self.curve["seconds"].append(sum(span["seconds"] for span in spans))
        self.curve["tokens"].append(sum(span["tokens"] for span in spans))
        self.curve["reward"].append(reward)
        if not self.steps:
            self.begin()


def train_config(spec: Spec) -> TrainConfig:
    """The shipped comparison's settings of the algorithm."""
    document = read_document(find_recipe("compare"))
    settings = settings_for("train", document, "compare", spec["algorithm"])
    if spec["algorithm"] == "grpo":
        settings["group_size"] = spec["group"]
    work = Path(spec["work"])
    return TrainConfig(
        **settings
        | {
            "algorithm": spec["algorithm"],
            "model": spec["model"],
            "problems": spec["train"],
            "eval_problems": spec["test"],
            "values": work / "values" if spec["algorithm"] == "astar_po" else None,
            "out": work / "run",
            "device": spec["device"],
            "seed": spec["seed"],
            "steps": spec["steps"],
            "prompts_per_step": spec["sequences"] // spec["group"],
            "eval_every": spec["eval_every"],
            "checkpoint_every": spec["steps"] + 1,
            # No more rows than TRL learns from at once: else evaluation would decide the peak.
            "max_sequences": spec["sequences"] // spec["passes"],
        }
        | spec["settings"].get("train", {})
    )


def estimate_config(spec: Spec, config: TrainConfig) -> EstimateConfig:
    """Stage 1 of the same."""
    settings = settings_for("estimate", read_document(find_recipe("compare")), "compare")
    shared = {name: getattr(config, name) for name in ("model", "problems", "device", "seed")}
    settings |= shared | spec["settings"].get("estimate", {})
    return EstimateConfig(**settings, out=config.values)


def run_astarpo(spec: Spec, config: TrainConfig, recorder: Recorder) -> None:
    """Our two functions, watched from outside; in stage 1 also loading and drawing are timed."""
    if config.values is not None:
        recorder.begin()
        table = estimate(estimate_config(spec, config))
        recorder.phases = dict(table.manifest["seconds"])
        recorder.count(len(table.samples(["sample"])), table.manifest["tokens"])
        recorder.stage1 = recorder.end()
    evaluate, log_metrics = HeldOut.evaluate, RunLog.log_metrics

    def evaluate_unclocked(held_out: HeldOut, *args: Any) -> dict[str, float]:
        with recorder.pause():
            scores = evaluate(held_out, *args)
        recorder.evaluated(scores["reward"])
        return scores

    def log_and_end(run: RunLog, row: dict[str, Any]) -> None:
        log_metrics(run, row)
        recorder.phases = {phase: row[f"seconds_{phase}"] for phase in PHASES}
        recorder.count(sum(row[f"status_{status}"] for status in STATUSES), row["tokens"])
        recorder.steps.append(recorder.end())

    with (
        patch.object(HeldOut, "evaluate", evaluate_unclocked),
        patch.object(RunLog, "log_metrics", log_and_end),
    ):
        train(config)


def run_trl(spec: Spec, config: TrainConfig, recorder: Recorder) -> None:
    """TRL's trainer with our verifier, optimiser settings, schedule and evaluation."""
    from transformers import TrainerCallback

    stage1 = estimate_config(spec, config) if spec["algorithm"] == "astar_po" else None
    policy = load_policy(spec["model"], pick_device(spec["device"]), trainable=True)
    policy.vocabulary.tokenizer.padding_side = "left"
    prompts = _fit(spec["train"], policy, spec)
    held_out = HeldOut(_fit(spec["test"], policy, spec), config, _sampling(spec))
    engine = HFEngine(policy, config.max_sequences)

    class Watch(TrainerCallback):
        """Ends steps and evaluates outside their time."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.evaluate()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            recorder.phases["update"] = recorder.now() - watched.prepared_at
            recorder.steps.append(recorder.end())
            step = len(recorder.steps)
            if step % config.eval_every == 0 or step == config.steps:
                self.evaluate()

        def evaluate(self) -> None:
            with recorder.pause():
                policy.model.eval()
                where = OneProcess(policy.device)
                reward = held_out.evaluate(where, policy.vocabulary, engine, grader)["reward"]
                policy.model.train()
            recorder.evaluated(reward)

    with Grader(config.grade_workers, config.grade_timeout) as grader:
        judge = judge_for(prompts, grader, recorder)
        trainer = make_trainer(spec, config, policy, prompts, judge, stage1)
        trainer.add_callback(Watch())
        watched = Watched(trainer, policy, recorder)
        if stage1 is not None:
            own = trainer.args.per_device_train_batch_size
            trainer.args.per_device_train_batch_size = TRL_STAGE1_PROMPTS[policy.device.type]
            recorder.begin()
            trainer._estimate_optimal_values()
            recorder.stage1 = recorder.end()
            trainer.args.per_device_train_batch_size = own
        trainer.train()


def _fit(path: str, policy: Policy, spec: Spec) -> list[Prompt]:
    return fit_prompts(read_problems(Path(path)), policy.vocabulary, "raw", spec["prompt_tokens"])


def _sampling(spec: Spec) -> Sampling:
    return Sampling(spec["new_tokens"], 1.0)


def judge_for(prompts: Sequence[Prompt], grader: Grader, recorder: Recorder) -> Callable:
    """Our verifier as a reward function of TRL's."""

    def judge(completions: list[str], index: list[int], **_: Any) -> list[float]:
        with recorder.phase("verify"):
            verdicts = grader.grade([prompts[i].problem for i in index], completions)
            return [verdict.reward for verdict in verdicts]

    return judge


def make_trainer(
    spec: Spec,
    config: TrainConfig,
    policy: Policy,
    prompts: Sequence[Prompt],
    judge: Callable,
    stage1: EstimateConfig | None,
) -> Any:
    """TRL's trainer of the algorithm; `against_trl.py` says why it is set up like this."""
    from datasets import Dataset

    rows = {"prompt": [p.problem.prompt[0]["content"] for p in prompts]}
    optimizer = torch.optim.AdamW(
        policy.model.parameters(),
        lr=config.lr,
        betas=ADAM_BETAS,
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: lr_scale(done + 1, spec["steps"], config)
    )
    settings = _trainer_settings(spec, config)
    if stage1 is not None:
        from trl.experimental.a2po import A2POConfig, A2POTrainer

        trainer_class = A2POTrainer
        arguments = A2POConfig(
            **settings,
            max_prompt_length=spec["prompt_tokens"],
            num_value_samples=stage1.samples,
            beta1=config.beta1,
            beta2=config.beta2,
            filter_all_incorrect=False,
        )
    else:
        from trl import GRPOConfig, GRPOTrainer

        trainer_class = GRPOTrainer
        arguments = GRPOConfig(
            **settings,
            num_generations=config.group_size,
            generation_batch_size=spec["sequences"],
            beta=config.kl_coef,
            epsilon=config.clip,
            loss_type="grpo",
            scale_rewards="group",
            use_bias_correction_kl=False,
        )
    return trainer_class(
        model=policy.model,
        reward_funcs=judge,
        args=arguments,
        train_dataset=Dataset.from_dict(rows | {"index": list(range(len(prompts)))}),
        processing_class=policy.vocabulary.tokenizer,
        optimizers=(optimizer, schedule),
    )


def _trainer_settings(spec: Spec, config: TrainConfig) -> dict[str, Any]:
    on_cuda = pick_device(spec["device"]).type == "cuda"
    return {
        "output_dir": str(Path(spec["work"]) / "trl"),
        "seed": spec["seed"],
        "max_steps": spec["steps"],
        "per_device_train_batch_size": spec["sequences"] // spec["passes"],
        "gradient_accumulation_steps": spec["passes"],
        "dataloader_drop_last": True,
        "dataloader_pin_memory": on_cuda,
        "max_grad_norm": config.grad_clip,
        "max_completion_length": spec["new_tokens"],
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "use_cpu": not on_cuda,
        "bf16": on_cuda,
        "gradient_checkpointing": False,
        "report_to": [],
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


class Watched:
    """Times a trainer's own methods by wrapping them, and counts what it generates.

    Attributes:
        prepared_at: When the rollout of this step was ready to be learnt from.
    """

    def __init__(self, trainer: Any, policy: Policy, recorder: Recorder) -> None:
        self._recorder = recorder
        self._stop_ids = torch.tensor(sorted(policy.vocabulary.stop_ids), device=policy.device)
        self._reference = trainer.ref_model
        self.prepared_at = 0.0
        for model in (policy.model, trainer.ref_model):
            model.generate = self._generating(model.generate)
        tokenizer = trainer.processing_class
        tokenizer.batch_decode = self._timed("verify", tokenizer.batch_decode)
        for name in ("_get_sequence_logps", "_get_per_token_logps_and_entropies"):
            if hasattr(trainer, name):
                setattr(trainer, name, self._scoring(getattr(trainer, name)))
        trainer._prepare_inputs = self._preparing(trainer._prepare_inputs)

    def _timed(self, phase: str, function: Callable) -> Callable:
        def timed(*args: Any, **settings: Any) -> Any:
            with self._recorder.phase(phase):
                return function(*args, **settings)

        return timed

    def _generating(self, generate: Callable) -> Callable:
        timed = self._timed("generate", generate)

        def counted(*args: Any, **settings: Any) -> Tensor:
            ids = timed(*args, **settings)
            with self._recorder.pause():
                new_BT = ids[:, settings["input_ids"].shape[1] :]
                stopped_BT = torch.isin(new_BT, self._stop_ids).int().cumsum(dim=-1)
                before_stop_B = (stopped_BT == 0).sum(dim=-1)
                lengths_B = before_stop_B + stopped_BT.amax(dim=-1).clamp(max=1)
                self._recorder.count(len(new_BT), int(lengths_B.sum()))
            return ids

        return counted

    def _scoring(self, score: Callable) -> Callable:
        timed = self._timed("reference", score)

        def of_reference(model: Any, *args: Any, **settings: Any) -> Any:
            is_reference = model is self._reference
            return (timed if is_reference else score)(model, *args, **settings)

        return of_reference

    def _preparing(self, prepare: Callable) -> Callable:
        def prepared(*args: Any, **settings: Any) -> Any:
            inputs = prepare(*args, **settings)
            self.prepared_at = self._recorder.now()
            return inputs

        return prepared


def memory(base_rss: int) -> dict[str, float]:
    """Peaks in GiB: of the process, what of it came after imports and a model, and CUDA's own."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    peaks = {"peak_rss_gib": peak / 2**30, "growth_gib": (peak - base_rss) / 2**30}
    if torch.cuda.is_available():
        peaks["cuda_allocated_gib"] = torch.cuda.max_memory_allocated() / 2**30
        peaks["cuda_reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    return peaks


def main(spec: Spec) -> dict[str, Any]:
    """Runs a contender; everything that it needs is imported before its memory is counted."""
    if spec["threads"]:
        torch.set_num_threads(spec["threads"])
    importlib.import_module("pandas")  # TRL requires it, and pyarrow loads it where it is there
    if spec["side"] == "trl":
        import trl
        import trl.experimental.a2po

        _ = trl.GRPOTrainer, trl.experimental.a2po.A2POTrainer  # imported when first asked for
    device = pick_device(spec["device"])
    config, recorder = train_config(spec), Recorder(device)
    load_policy(spec["model"], device)
    base_rss = psutil.Process().memory_info().rss
    contend = {"astarpo": run_astarpo, "trl": run_trl}[spec["side"]]
    contend(spec, config, recorder)
    return {
        "stage1": recorder.stage1,
        "steps": recorder.steps,
        "curve": recorder.curve,
        "memory": memory(base_rss),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


if __name__ == "__main__":
    result = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
