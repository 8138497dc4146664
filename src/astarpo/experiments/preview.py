"""What an experiment would do: its runs, and how many sequences each stage would sample."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from astarpo.config import TrainConfig
from astarpo.config.train import TRAIN_SETTINGS
from astarpo.experiments.files import problem_files
from astarpo.experiments.plan import TEST, Experiment, Variant, algorithm_of

# What the experiment sets by itself is said by the other lines.
_OWN = {n for n, setting in TRAIN_SETTINGS.items() if setting.in_experiment in ("variant", "run")}


def preview(experiment: Experiment) -> list[str]:
    """Lines of text that describe the experiment. Problems are made or read; nothing is written.

    Raises:
        UserError: Problems cannot be made or read.
    """
    seed = experiment.seeds[0]
    seeds = ", ".join(map(str, experiment.seeds))
    sizes = {config.out: len(problems) for config, problems in problem_files(experiment)}
    lines = [f"{path}: {size} problems" for path, size in sizes.items()]
    lines += ["", f"{len(list(experiment.runs()))} runs: each variant with the seeds {seeds}"]
    configs = {variant: experiment.train_config(variant, seed) for variant in experiment.variants}
    shared, own = _settings(list(configs.values()))
    lines.append(f"settings of all that are no defaults: {shared}")
    tables = set()
    for (variant, config), different in zip(configs.items(), own, strict=True):
        stage1 = experiment.estimate_config(variant, seed)
        if config.values is not None and stage1.out not in tables:
            tables.add(stage1.out)
            count = sizes[stage1.problems] * stage1.samples
            lines.append(f"stage 1{_of(variant)}, each seed: {count:,} samples")
        lines.append(f"{variant.name}: {_training(config, sizes[config.problems])}; {different}")
    evaluations = experiment.reference_configs(experiment.variants[0])
    count = sum(sizes[c.problems] * (1 + c.samples) for c in evaluations.values() if c.problems)
    lines.append(f"scores on {', '.join(evaluations)}: {count:,} answers for each policy")
    held_out = configs[experiment.variants[0]]
    size = sizes[experiment.test_files(experiment.variants[0])[TEST]] * held_out.eval_samples
    lines.append(
        f"held-out reward while training, every {held_out.eval_every} steps: {size:,} answers "
        "(not in the costs)"
    )
    return lines


def _training(config: TrainConfig, num_problems: int) -> str:
    each = algorithm_of(config).samples_per_prompt
    step = f"steps of {config.prompts_per_step} prompts x {each}"
    if config.max_seconds is not None:
        return f"{step}, as many as fit"
    steps = config.steps or math.ceil(config.epochs * num_problems / config.prompts_per_step)
    return f"{steps} {step}: {steps * config.prompts_per_step * each:,} samples"


def _settings(configs: Sequence[TrainConfig]) -> tuple[str, list[str]]:
    """Settings that all share and that are not the default, and for each config the others."""
    dumps = [config.model_dump(mode="json", exclude=_OWN) for config in configs]
    differing = [name for name in dumps[0] if any(d[name] != dumps[0][name] for d in dumps)]
    plain = configs[0].model_dump(mode="json", exclude=_OWN, exclude_defaults=True)
    shared = {name: value for name, value in plain.items() if name not in differing}
    return _words(shared), [_words({name: dump[name] for name in differing}) for dump in dumps]


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "none"


def _of(variant: Variant) -> str:
    return f" of {variant.data}" if variant.data else ""
