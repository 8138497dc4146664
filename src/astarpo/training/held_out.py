"""Evaluation on held-out problems during training, whose time is not counted as training."""

from collections.abc import Sequence

from astarpo.config import TrainConfig
from astarpo.engines.base import Engine, Sampling
from astarpo.evaluation.scores import mean_score
from astarpo.grading.grader import Grader
from astarpo.models.vocabulary import Vocabulary
from astarpo.rollout import share_roll_out
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.seeding import derive_seed
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.types import Prompt


class HeldOut:
    """Answers the same problems with the same seeds at every call: steps can be compared."""

    def __init__(self, prompts: Sequence[Prompt], config: TrainConfig, sampling: Sampling) -> None:
        self._samples = config.eval_samples
        self._prompts = [prompt for prompt in prompts for _ in range(self._samples)]
        self._seeds = [
            derive_seed(config.seed, "held-out", prompt.problem.id, k)
            for prompt in prompts
            for k in range(self._samples)
        ]
        self._sampling = sampling

    def evaluate(
        self, where: OneProcess, vocabulary: Vocabulary, engine: Engine, grader: Grader
    ) -> dict[str, float]:
        """Mean reward over problems, and half the width of its 95% interval."""
        answers = share_roll_out(
            where,
            vocabulary,
            engine,
            grader,
            self._prompts,
            self._seeds,
            self._sampling,
            Stopwatch(),
        )
        rewards = [answer.verdict.reward for answer in answers]
        k = self._samples
        score = mean_score([sum(rewards[i : i + k]) / k for i in range(0, len(rewards), k)])
        return {"reward": score.value, "low": score.low, "high": score.high}
