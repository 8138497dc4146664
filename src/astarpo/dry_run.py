"""What a verb would do, without doing it: settings, counts, and the first prompt as tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from astarpo.config import (
    CompareConfig,
    Config,
    DataConfig,
    DemoConfig,
    EstimateConfig,
    EvaluateConfig,
    RunConfig,
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
    details = _DETAILS.get(type(config), lambda config: [])(config)
    return "\n".join([f"astarpo {verb} would run with", config.model_dump_json(indent=2), *details])


def _data(config: DataConfig) -> list[str]:
    from astarpo.data import gather_problems

    problems = gather_problems(config)
    return [f"{len(problems)} problems; the first, {problems[0].id}:", _text(problems[0])]


def _estimate(config: EstimateConfig) -> list[str]:
    from astarpo.value_table import ValueTable

    prompts, lines = _judged_prompts(config, config.problems)
    wanted = len(prompts) * config.samples
    left = wanted
    if (config.out / "manifest.json").exists():
        missing = ValueTable(config.out).missing_samples(
            [prompt.problem for prompt in prompts], config.samples
        )
        left = sum(map(len, missing))
    return [f"{wanted} samples ({config.samples} each), {wanted - left} already there", *lines]


def _train(config: TrainConfig) -> list[str]:
    from astarpo.inputs import attach_values, count_steps, open_inputs
    from astarpo.lora import require_lora
    from astarpo.optimizers import require_optimizer

    inputs = open_inputs(config)
    require_optimizer(config.optimizer)
    require_lora(config)
    text, each = inputs.text, inputs.algorithm.samples_per_prompt
    prompts, lines = _prompts(
        inputs.problems, config.model, text.prompt_format, text.max_prompt_tokens
    )
    kept, values = attach_values(prompts, inputs.table, config)
    mean = f", mean V* {sum(values) / len(kept):.3f}" if values else ""
    return [
        f"{len(kept)} problems after filter {config.filter}{mean}",
        f"{count_steps(config, len(kept))} steps of {config.prompts_per_step} prompts, "
        f"{each} samples each, {config.minibatches} updates a step",
        *lines,
    ]


def _evaluate(config: EvaluateConfig) -> list[str]:
    if config.problems is None:
        return [f"suite {config.suite}: {config.benchmarks or 'all benchmarks'}"]
    prompts, lines = _judged_prompts(config, config.problems)
    return [f"{len(prompts)} greedy answers and {len(prompts) * config.samples} samples", *lines]


def _warm_start(config: WarmStartConfig) -> list[str]:
    from astarpo.problem_set import read_problems

    problems = read_problems(config.problems)
    solved = [problem for problem in problems if problem.extra.get("solution")]
    return [f"{len(solved)} of {len(problems)} problems have a worked solution"]


def _run(config: RunConfig) -> list[str]:
    from astarpo.run import read_recipe, stage_configs

    document, origin = read_recipe(config)
    stages = stage_configs(document, config.out, origin)
    return [f"{name}: {stage.model_dump_json()}" for name, stage in stages.items()]


def _demo(config: DemoConfig) -> list[str]:
    from astarpo.demo import recipe_of

    return _run(recipe_of(config))


def _compare(config: CompareConfig) -> list[str]:
    from astarpo.compare import plan_comparison
    from astarpo.experiment.preview import preview

    return preview(plan_comparison(config))


def _sweep(config: SweepConfig) -> list[str]:
    from astarpo.experiment.preview import preview
    from astarpo.sweep import plan_sweep

    return preview(plan_sweep(config))


_DETAILS: dict[type[Config], Callable[[Any], list[str]]] = {
    DataConfig: _data,
    EstimateConfig: _estimate,
    TrainConfig: _train,
    EvaluateConfig: _evaluate,
    WarmStartConfig: _warm_start,
    RunConfig: _run,
    DemoConfig: _demo,
    CompareConfig: _compare,
    SweepConfig: _sweep,
}


def _judged_prompts(
    config: EstimateConfig | EvaluateConfig, path: Path
) -> tuple[list[Prompt], list[str]]:
    """As `_prompts`, of a problem file, once something is known to judge its problems."""
    from astarpo.grading import verifier_fingerprint
    from astarpo.problem_set import read_problems

    problems = read_problems(path, limit=config.limit)
    verifier_fingerprint(problems, config.reward)
    return _prompts(problems, config.model, config.prompt_format, config.max_prompt_tokens)


def _prompts(
    problems: Sequence[Problem], model: str, prompt_format: Any, max_tokens: int
) -> tuple[list[Prompt], list[str]]:
    """The prompts that fit, and lines that tell of them."""
    from astarpo.policy import fit_prompts, load_tokenizer

    tokenizer = load_tokenizer(model)
    prompts = fit_prompts(problems, tokenizer, prompt_format, max_tokens)
    first, lengths = prompts[0], [len(prompt.token_ids) for prompt in prompts]
    return prompts, [
        f"{len(prompts)} of {len(problems)} problems fit max_prompt_tokens={max_tokens} "
        f"({min(lengths)} to {max(lengths)} tokens)",
        f"the first prompt, {first.problem.id}, {len(first.token_ids)} tokens:",
        tokenizer.decode(first.token_ids),
        f"token ids: {list(first.token_ids)}",
    ]


def _text(problem: Problem) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in problem.prompt)
