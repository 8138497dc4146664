"""What a dry run says of an experiment: its runs, and how many answers each stage would sample."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astarpo.config import EstimateConfig, TrainConfig
from astarpo.config.train import TRAIN_SETTINGS
from astarpo.experiments.files import problem_files
from astarpo.experiments.plan import TEST, Cost, Experiment, Variant, algorithm_of

# Settings that the experiment itself sets; the other lines of the preview tell them.
_OWN = {n for n, setting in TRAIN_SETTINGS.items() if setting.in_experiment in ("variant", "run")}


def preview(experiment: Experiment) -> list[str]:
    """Lines of text that describe the experiment. Problems are made or read; nothing is written."""
    seed = experiment.seeds[0]
    seeds = ", ".join(map(str, experiment.seeds))
    sizes = {config.out: len(problems) for config, problems in problem_files(experiment)}
    lines = [f"{path}: {size} problems" for path, size in sizes.items()]
    lines += ["", f"{len(list(experiment.runs()))} runs: each variant with the seeds {seeds}"]
    configs = {
        variant: _train_config(experiment, variant, sizes) for variant in experiment.variants
    }
    shared, own = _settings(list(configs.values()))
    lines.append(f"settings of all that are no defaults: {shared}")
    tables = set()
    for (variant, config), different in zip(configs.items(), own, strict=True):
        stage1 = experiment.estimate_config(variant, seed)
        if config.values is not None and stage1.out not in tables:
            tables.add(stage1.out)
            of = f" of {variant.data}" if variant.data else ""
            lines.append(f"stage 1{of}, each seed: {_stage1(stage1, sizes[stage1.problems])}")
        lines.append(f"{variant.name}: {_training(config, sizes[config.problems])}; {different}")
    first = experiment.variants[0]
    evaluations = experiment.reference_configs(first)
    count = sum(sizes[c.problems] * (1 + c.samples) for c in evaluations.values() if c.problems)
    lines.append(f"scores on {', '.join(evaluations)}: {count:,} answers for each policy")
    held_out = configs[first]
    size = sizes[experiment.test_files(first)[TEST]] * held_out.eval_samples
    lines.append(
        f"held-out reward while training, every {held_out.eval_every} steps: {size:,} answers "
        "(not in the costs)"
    )
    return lines


def _train_config(
    experiment: Experiment, variant: Variant, sizes: Mapping[Path, int]
) -> TrainConfig:
    """Training of a variant after a stage 1 of the samples that are planned."""
    seed = experiment.seeds[0]
    config = experiment.train_config(variant, seed)
    if config.values is None or experiment.total_samples is None:
        return config
    stage1 = experiment.estimate_config(variant, seed)
    each = config.values_samples or stage1.samples
    samples = stage1.budget_samples or sizes[config.problems] * each
    return experiment.train_config(variant, seed, Cost(samples=samples))


def _stage1(config: EstimateConfig, num_problems: int) -> str:
    if config.budget_samples is not None:
        return f"{config.budget_samples:,} samples, in rounds"
    if config.budget_tokens is not None:
        return f"about {config.budget_tokens:,} tokens, in rounds"
    first = f"{num_problems * config.samples:,} samples"
    if config.target_error is not None:
        return f"{first}, then rounds until V* is known to {config.target_error:g}"
    return first


def _training(config: TrainConfig, num_problems: int) -> str:
    each = algorithm_of(config).samples_per_prompt
    step = f"steps of {config.prompts_per_step} prompts x {each}"
    if config.max_seconds is not None:
        return f"{step}, as many as fit"
    steps = config.steps or math.ceil(config.epochs * num_problems / config.prompts_per_step)
    return f"{steps} {step}: {steps * config.prompts_per_step * each:,} samples"


def _settings(configs: Sequence[TrainConfig]) -> tuple[str, list[str]]:
    """The settings that all share and that are no defaults; then, for each config, the others."""
    dumps = [config.model_dump(mode="json", exclude=_OWN) for config in configs]
    differing = [name for name in dumps[0] if any(d[name] != dumps[0][name] for d in dumps)]
    plain = configs[0].model_dump(mode="json", exclude=_OWN, exclude_defaults=True)
    shared = {name: value for name, value in plain.items() if name not in differing}
    return _words(shared), [_words({name: dump[name] for name in differing}) for dump in dumps]


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "none"
