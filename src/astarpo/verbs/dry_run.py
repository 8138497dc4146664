"""What a verb would do, without doing it: settings, counts, and the first prompt as tokens.

All of it comes from the `prepare` that the verb itself starts with, so the two cannot disagree.
"""

from collections.abc import Callable, Sequence
from typing import Any

from astarpo.config import (
    CompareConfig,
    Config,
    DataConfig,
    DemoConfig,
    EstimateConfig,
    EvaluateConfig,
    ExportConfig,
    ImportValuesConfig,
    ReportConfig,
    RunConfig,
    RunsConfig,
    SweepConfig,
    TrainConfig,
    WarmStartConfig,
)
from astarpo.types import Problem, Prompt


def dry_run(verb: str, config: Config) -> str:
    """Says what a verb would do. Writes nothing, samples nothing and loads no weights.

    Args:
        verb: Its name.
        config: Its settings.

    Returns:
        The resolved config as JSON, then what else can be known beforehand.

    Raises:
        UserError: An input is wrong; the verb itself would say the same.
    """
    details = _DETAILS[type(config)](config)
    return "\n".join([f"astarpo {verb} would run with", config.model_dump_json(indent=2), *details])


def _data(config: DataConfig) -> list[str]:
    from astarpo.stages.data import prepare

    problems = prepare(config)
    return [f"{len(problems)} problems; the first, {problems[0].id}:", _text(problems[0])]


def _estimate(config: EstimateConfig) -> list[str]:
    from astarpo.stages.estimate import prepare
    from astarpo.values.table import ValueTable

    prepared = prepare(config)
    prompts = prepared.prompts
    wanted = left = len(prompts) * config.samples
    if (config.out / "manifest.json").exists():
        missing = ValueTable(config.out).missing_samples(
            [prompt.problem for prompt in prompts], config.samples
        )
        left = sum(map(len, missing))
    return [
        f"{wanted} samples ({config.samples} each), {wanted - left} already there",
        *_prompts(prepared.vocabulary.tokenizer, prompts, len(prepared.problems)),
    ]


def _train(config: TrainConfig) -> list[str]:
    from astarpo.stages.train import prepare

    inputs = prepare(config)
    prompts = inputs.prompts
    values = [prompt.value for prompt in prompts if prompt.value is not None]
    mean = f", mean V* {sum(values) / len(values):.3f}" if values else ""
    return [
        f"{len(prompts)} problems after filter {config.filter}{mean}",
        f"{inputs.num_steps} steps of {config.prompts_per_step} prompts, "
        f"{inputs.algorithm.samples_per_prompt} samples each, {config.minibatches} updates a step",
        *_prompts(inputs.vocabulary.tokenizer, prompts, len(inputs.problems)),
    ]


def _evaluate(config: EvaluateConfig) -> list[str]:
    if config.suite:
        from astarpo.evaluation.suite import prepare as prepare_suite

        prompts_by_name = prepare_suite(config).prompts
        return [
            f"suite {config.suite}: "
            + (", ".join(f"{k} ({len(p)} problems)" for k, p in prompts_by_name.items()) or "done")
        ]
    from astarpo.stages.evaluate import prepare

    prepared = prepare(config)
    count = len(prepared.prompts)
    return [
        f"{count} greedy answers and {count * config.samples} samples",
        *_prompts(prepared.vocabulary.tokenizer, prepared.prompts, len(prepared.problems)),
    ]


def _warm_start(config: WarmStartConfig) -> list[str]:
    from astarpo.stages.warm_start import prepare

    _, examples = prepare(config)
    return [f"{config.steps} updates on {len(examples)} worked solutions"]


def _import_values(config: ImportValuesConfig) -> list[str]:
    from astarpo.verbs.import_values import prepare

    published, _ = prepare(config)
    return [f"{len(published)} problems with {len(published[0].responses)} samples each"]


def _export(config: ExportConfig) -> list[str]:
    from astarpo.verbs.export import prepare

    _, problems, kept = prepare(config)
    return [f"{len(kept)} of {len(problems)} problems have samples"]


def _report(config: ReportConfig) -> list[str]:
    from astarpo.verbs.report import prepare

    return [f"would be written: {prepare(config)}"]


def _runs(config: RunsConfig) -> list[str]:
    from astarpo.verbs.runs import prepare

    return [f"{len(prepare(config))} runs"]


def _run(config: RunConfig) -> list[str]:
    from astarpo.verbs.run import prepare

    stages = prepare(config)
    return [f"{name}: {stage.model_dump_json()}" for name, stage in stages.items()]


def _demo(config: DemoConfig) -> list[str]:
    from astarpo.verbs.demo import recipe_of

    return _run(recipe_of(config))


def _compare(config: CompareConfig) -> list[str]:
    from astarpo.experiments.preview import preview
    from astarpo.verbs.compare import prepare

    return preview(prepare(config))


def _sweep(config: SweepConfig) -> list[str]:
    from astarpo.experiments.preview import preview
    from astarpo.verbs.sweep import prepare

    return preview(prepare(config))


_DETAILS: dict[type[Config], Callable[[Any], list[str]]] = {
    DataConfig: _data,
    EstimateConfig: _estimate,
    TrainConfig: _train,
    EvaluateConfig: _evaluate,
    WarmStartConfig: _warm_start,
    ImportValuesConfig: _import_values,
    ExportConfig: _export,
    ReportConfig: _report,
    RunsConfig: _runs,
    RunConfig: _run,
    DemoConfig: _demo,
    CompareConfig: _compare,
    SweepConfig: _sweep,
}


def _prompts(tokenizer: Any, prompts: Sequence[Prompt], num_problems: int) -> list[str]:
    """Lines that tell of the prompts that are used."""
    first, lengths = prompts[0], [len(prompt.token_ids) for prompt in prompts]
    return [
        f"{len(prompts)} of {num_problems} problems are used ({min(lengths)} to {max(lengths)} "
        "tokens each)",
        f"the first prompt, {first.problem.id}, {len(first.token_ids)} tokens:",
        tokenizer.decode(first.token_ids),
        f"token ids: {list(first.token_ids)}",
    ]


def _text(problem: Problem) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in problem.prompt)
