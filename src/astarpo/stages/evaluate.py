"""Score a policy on held-out problems: greedily and with k samples, as the verifier sees it."""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from astarpo.config import EvaluateConfig
from astarpo.engines import choose_engine, load_engine
from astarpo.evaluation.choices import MICRO_BATCH_TOKENS
from astarpo.evaluation.measure import (
    Measurement,
    answered_by_choice,
    holds_answers,
    measure,
    write_answers,
)
from astarpo.evaluation.scores import Score, mean_score
from astarpo.evaluation.suite import evaluate_suite, preview_suite
from astarpo.grading.grader import Grader
from astarpo.grading.reward import reward_file
from astarpo.grading.verdicts import tell_verdicts
from astarpo.models.batch import masked_sum, micro_batches
from astarpo.models.folder import fingerprint
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy, load_policy
from astarpo.models.vocabulary import Vocabulary, load_vocabulary
from astarpo.runtime.distributed import OneProcess, open_ranks
from astarpo.runtime.files import write_json
from astarpo.runtime.outputs import check_file
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.runtime.version import package_version
from astarpo.stages.prepared import Prepared, prepare_prompts, preview_prompts
from astarpo.stages.ranks import call_facts, problem_facts
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import Answer, Problem, UserError

logger = logging.getLogger("astarpo")


def evaluate(config: EvaluateConfig, problems: Sequence[Problem] | None = None) -> dict[str, Any]:
    """Scores a policy and writes the scores as JSON, every answer beside it as Parquet.

    Args:
        config: Its settings.
        problems: What `config.problems` will hold, which is then written too.

    Returns:
        What the JSON says. `scores` holds means over problems with 95% intervals: `pass_at_1`
        (greedy), `avg_at_<k>`, `maj_at_<k>`, `pass_at_<j>` for powers of two up to k, and, where a
        reference is given, `kl` and `kl_per_token` in nats. Of multiple choice: `acc`, `acc_norm`.
        With `suite`: what `evaluate_suite` returns.

    Raises:
        UserError: An input is wrong.
    """
    if config.suite:
        return evaluate_suite(config)
    with open_ranks(config.device) as where:
        with where.together():
            if problems is not None and config.problems is not None:
                check_file(config.problems, overwrite=config.overwrite)
            prepared = prepare(config, problems)
            where.require_work(len(prepared.prompts), "prompts")
            facts = call_facts(config) | problem_facts(prepared.problems) | prepared.verifiers
        where.require_alike(facts | fingerprint(config.model))
        result, measured = _score(choose_engine(config), prepared, where)
        where.first(lambda: _write(config, problems, result, measured))
    for name, score in measured.scores.items():
        logger.info(f"{name:>13}  {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]")
    tell_verdicts("evaluate", result["statuses"], result["truncated_share"])
    return result


def _score(
    config: EvaluateConfig, prepared: Prepared, where: OneProcess
) -> tuple[dict[str, Any], Measurement]:
    """Answers and scores, and what the JSON says of them."""
    prompts, vocabulary = prepared.prompts, prepared.vocabulary
    load = cache(partial(load_policy, config.model, where.device, vocabulary))
    # Its token ids are known to mean the same.
    load_reference = cache(partial(load_policy, str(config.reference), where.device, vocabulary))
    context = prompts.longest + config.max_new_tokens
    stopwatch = Stopwatch()
    with where.together():
        if config.reference and config.engine != "vllm":  # which needs the memory while it samples
            load_reference()
        engine = load_engine(config, vocabulary, load, context)
    with engine, Grader(config.grade_workers, config.grade_timeout, config.trust_reward) as grader:
        measured = measure(vocabulary, load, engine, prompts, config, grader, stopwatch, where)
    if config.reference and measured.sampled_PK:
        with stopwatch.phase("reference"):
            measured.scores.update(
                kl_scores(load, load_reference, measured.sampled_PK, config.temperature, where)
            )
    result = {
        "model": config.model,
        "problems": str(config.problems),
        "num_problems": len(prompts),
        "num_set_aside": len(prepared.problems) - len(prompts),
        **_told(config),
        "package_version": package_version(),
        "engine": dict(engine.facts),
        "verifiers": prepared.verifiers,
        **measured.summary(),
        "seconds": stopwatch.seconds,
    }
    return result, measured


def _write(
    config: EvaluateConfig,
    given: Sequence[Problem] | None,
    result: dict[str, Any],
    measured: Measurement,
) -> None:
    if given is not None and config.problems is not None:
        write_problems(config.problems, given)
    write_answers(answers_file(config), measured.answers)
    write_json(config.out, result)


def _told(config: EvaluateConfig) -> dict[str, Any]:
    """The settings that stand beside the scores."""
    return {
        "samples": config.samples,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_new_tokens": config.max_new_tokens,
        "prompt_format": config.prompt_format,
        "seed": config.seed,
    }


def prepare(config: EvaluateConfig, problems: Sequence[Problem] | None = None) -> Prepared:
    """Reads and checks what `evaluate` needs; loads no weights and writes nothing.

    Args:
        config: Its settings, without a suite.
        problems: Those of a file that is not written yet.
    """
    if config.suite is not None:
        raise UserError("a suite brings its own problems: give it to astarpo evaluate alone")
    if config.benchmarks or config.suite_sources:
        raise UserError("--benchmarks and --suite-sources choose from a suite: give --suite paper")
    if config.problems is None:
        raise UserError("what to evaluate on is missing: give --problems FILE or --suite paper")
    if config.reference and (config.samples == 0 or config.top_p < 1):
        raise UserError("reference: the KL needs --samples of at least 1 and --top-p 1")
    inputs = [config.model, config.reference, config.problems, reward_file(config.trust_reward)]
    check_file(config.out, inputs, overwrite=config.overwrite, suffix=".json")
    left_over = not config.out.exists() and holds_answers(answers_file(config))
    check_file(answers_file(config), inputs, overwrite=config.overwrite or left_over)
    if problems is None:
        problems = read_problems(config.problems, limit=config.limit)
    prepared = prepare_prompts(config, problems)
    answered_by_choice(prepared.problems)
    if config.reference:
        _require_one_vocabulary(prepared.vocabulary, config.reference)
    return prepared


def answers_file(config: EvaluateConfig) -> Path:
    """Where the answers are written, beside the scores."""
    return config.out.with_suffix(".parquet")


def _require_one_vocabulary(vocabulary: Vocabulary, reference: str) -> None:
    if load_vocabulary(reference).tokenizer.get_vocab() != vocabulary.tokenizer.get_vocab():
        raise UserError(f"{reference}: has another vocabulary than {vocabulary.name}")


def kl_scores(
    load: Callable[[], Policy],
    load_reference: Callable[[], Policy],
    sampled_PK: Sequence[Sequence[Answer]],
    temperature: float,
    where: OneProcess,
) -> dict[str, Score]:
    """KL of the policy to the reference, in nats, on K answers of its own to each problem.

    The processes share the problems.
    """
    answers = [answer for row in sampled_PK for answer in row]
    mine = where.share([sum(map(len, answer.sequence)) for answer in answers])
    with where.together():
        own = _log_ratios(load(), load_reference(), [answers[i] for i in mine], temperature)
    log_ratios, k = where.gather(own), len(sampled_PK[0])
    per_problem = [sum(log_ratios[i : i + k]) / k for i in range(0, len(answers), k)]
    mean_tokens = sum(len(a.completion.token_ids) for a in answers) / len(answers)
    kl = mean_score(per_problem)
    return {"kl": kl, "kl_per_token": Score(*(value / mean_tokens for value in kl))}


@torch.no_grad()
def _log_ratios(
    policy: Policy, reference: Policy, answers: Sequence[Answer], temperature: float
) -> list[float]:
    """Of each answer the log of its probability under the policy over that under the reference."""
    lengths = [sum(map(len, answer.sequence)) for answer in answers]
    log_ratios = [0.0] * len(answers)
    for indices in micro_batches(lengths, MICRO_BATCH_TOKENS):
        batch = policy.collate([answers[i].sequence for i in indices])
        totals = []
        for side in (policy, reference):
            with side.autocast():
                logprobs_BT, _ = token_logprobs(side.model, batch, temperature)
            totals.append(masked_sum(logprobs_BT, batch.mask_BT))
        for i, log_ratio in zip(indices, (totals[0] - totals[1]).tolist(), strict=True):
            log_ratios[i] = log_ratio
    return log_ratios


def preview(config: EvaluateConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    if config.suite:
        return preview_suite(config)
    prepared = prepare(config)
    count = len(prepared.prompts)
    return [
        f"{count} greedy answers and {count * config.samples} samples",
        *preview_prompts(prepared.vocabulary, prepared.prompts, len(prepared.problems)),
    ]
