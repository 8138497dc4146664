"""One policy on one set of problems: its answers, their scores, and what is written of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from astarpo.config import EvaluateConfig
from astarpo.engines.base import Engine, Sampling
from astarpo.evaluation.choices import has_choices, share_choices
from astarpo.evaluation.scores import Score, majority_right, mean_score, pass_at_k
from astarpo.grading.columns import answer_row
from astarpo.grading.grader import Grader
from astarpo.models.policy import Policy
from astarpo.models.vocabulary import Vocabulary
from astarpo.rollout import share_roll_out
from astarpo.runtime.distributed import OneProcess
from astarpo.runtime.parquet import write_parquet
from astarpo.runtime.progress import Progress
from astarpo.runtime.seeding import derive_seed
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.types import Answer, Problem, Prompt, UserError


@dataclass(frozen=True)
class Measurement:
    """Answers and scores.

    Attributes:
        scores: Means over problems, by name.
        answers: Each with its mode (`greedy`, `sampled`, or the score that picked a choice) and the
            number of the sample.
        sampled_PK: The sampled ones by problem, empty where there are none.
    """

    scores: dict[str, Score]
    answers: list[tuple[str, int, Answer]]
    sampled_PK: list[list[Answer]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Scores, statuses and lengths, for JSON."""
        every = [answer for _, _, answer in self.answers]
        truncated = sum(answer.completion.finish_reason == "length" for answer in every)
        return {
            "scores": {name: score._asdict() for name, score in self.scores.items()},
            "statuses": dict(Counter(answer.verdict.status for answer in every)),
            "truncated_share": truncated / len(every),
            "mean_tokens": sum(len(answer.completion.token_ids) for answer in every) / len(every),
        }


def measure(
    vocabulary: Vocabulary,
    load: Callable[[], Policy],
    engine: Engine,
    prompts: Sequence[Prompt],
    config: EvaluateConfig,
    grader: Grader,
    stopwatch: Stopwatch,
    where: OneProcess,
) -> Measurement:
    """Answers every problem and scores the answers.

    Problems with choices are answered by the policy's likelihood of each, others greedily and with
    `config.samples` samples. The two kinds are not mixed.

    Args:
        vocabulary: The policy's.
        load: Gives the policy itself, which only problems with choices need.
        engine: Samples from it.
        prompts: What to answer.
        config: How.
        grader: Judges.
        stopwatch: Gets the phases.
        where: The processes that share the problems; each gets all answers.
    """
    if answered_by_choice([prompt.problem for prompt in prompts]):
        with stopwatch.phase("choices"), engine.resting():
            picked = share_choices(where, load(), prompts, config.prompt_format)
        scores = {n: mean_score([a.verdict.reward for a in row]) for n, row in picked.items()}
        return Measurement(scores, [(n, 0, answer) for n, row in picked.items() for answer in row])
    greedy_P, sampled_PK = answer_all(vocabulary, engine, prompts, config, grader, stopwatch, where)
    answers = [("greedy", 0, answer) for answer in greedy_P]
    answers += [("sampled", k, a) for row in sampled_PK for k, a in enumerate(row)]
    return Measurement(score_answers(greedy_P, sampled_PK), answers, sampled_PK)


def answered_by_choice(problems: Sequence[Problem]) -> bool:
    """Whether problems are answered by one of their choices, not by generated text.

    Raises:
        UserError: Some are, and some are not.
    """
    with_choices = {has_choices(problem) for problem in problems}
    if len(with_choices) > 1:
        raise UserError("some problems have choices and some have none: evaluate them apart")
    return with_choices == {True}


def answer_all(
    vocabulary: Vocabulary,
    engine: Engine,
    prompts: Sequence[Prompt],
    config: EvaluateConfig,
    grader: Grader,
    stopwatch: Stopwatch,
    where: OneProcess,
) -> tuple[list[Answer], list[list[Answer]]]:
    """One greedy answer and `config.samples` sampled ones for each prompt."""
    greedy = Sampling(config.max_new_tokens, temperature=0.0)
    sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
    repeated = [prompt for prompt in prompts for _ in range(config.samples)]
    seeds = [
        derive_seed(config.seed, "evaluate", prompt.problem.id, k)
        for prompt in prompts
        for k in range(config.samples)
    ]
    with Progress("evaluate: answers", len(prompts) + len(repeated)) as progress:
        advance = progress.advance
        unused = [0] * len(prompts)  # greedy draws nothing
        greedy_P = share_roll_out(
            where, vocabulary, engine, grader, prompts, unused, greedy, stopwatch, advance
        )
        sampled = share_roll_out(
            where, vocabulary, engine, grader, repeated, seeds, sampling, stopwatch, advance
        )
    k = config.samples
    return greedy_P, [sampled[i : i + k] for i in range(0, len(sampled), k)] if k else []


def score_answers(
    greedy_P: Sequence[Answer], sampled_PK: Sequence[Sequence[Answer]]
) -> dict[str, Score]:
    """Scores over problems; an answer is right, and passes, if its reward is at least 1.

    `avg_at_<k>` is the mean reward. Where rewards are not all 0 or 1, `greedy_reward` is that of
    the greedy answers; where the verifier states no answers, there is no `maj_at_<k>`.
    """
    greedy = [answer.verdict.reward for answer in greedy_P]
    scores = {"pass_at_1": mean_score([float(reward >= 1) for reward in greedy])}
    if not set(greedy) <= {0.0, 1.0}:
        scores["greedy_reward"] = mean_score(greedy)
    if not sampled_PK:
        return scores
    k = len(sampled_PK[0])
    rewards_PK = [[answer.verdict.reward for answer in answers] for answers in sampled_PK]
    scores[f"avg_at_{k}"] = mean_score([sum(rewards) / k for rewards in rewards_PK])
    verdicts = [answer.verdict for answers in sampled_PK for answer in answers]
    if all(verdict.answer is not None for verdict in verdicts if verdict.status == "ok"):
        scores[f"maj_at_{k}"] = mean_score(
            [
                majority_right([answer.verdict.answer for answer in answers], rewards)
                for answers, rewards in zip(sampled_PK, rewards_PK, strict=True)
            ]
        )
    num_right_P = [sum(reward >= 1 for reward in rewards) for rewards in rewards_PK]
    draws = [2**i for i in range(1, k.bit_length()) if 2**i <= k]
    for j in draws:
        scores[f"pass_at_{j}"] = mean_score([pass_at_k(k, right, j) for right in num_right_P])
    return scores


def holds_answers(path: Path) -> bool:
    """Whether `write_answers` wrote a file; without scores beside it, an evaluation was killed."""
    try:
        return {"mode", "problem_id", "finish_reason"} <= set(pq.read_schema(path).names)
    except (OSError, pa.ArrowInvalid):
        return False


def write_answers(path: Path, answers: Sequence[tuple[str, int, Answer]]) -> None:
    """Writes every answer with its verdict as Parquet, whole or not at all."""
    rows = [answer_row(answer, mode=mode, sample=k) for mode, k, answer in answers]
    write_parquet(path, pa.Table.from_pylist(rows))
