"""Recognises from the metrics of a run that it is going wrong, and says what to do.

A run is stopped only for what chance does not explain: a reward that has fallen by more than five
standard errors to under a fifth of its best while the KL has clearly risen, or a KL that is clearly
negative. A warning comes first; the stop comes if the sign is still there `PATIENCE` steps later.
"""

import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from astarpo.types import TrainingStopped

logger = logging.getLogger("astarpo")

HealthMode = Literal["stop", "warn", "off"]

WINDOWS = (3, 10, 40)
"""Steps that are judged together: few see a fall in the first steps, many one in small rollouts."""

PATIENCE = 5
"""Steps between a warning and the stop that follows if nothing changes."""

# Standard errors. The best of a thousand stretches is compared with the latest, so chance has many
# tries; `tests/training/test_health.py` simulates them.
_SIGNIFICANT = 5.0

# Nats of a response. When a policy collapses, its KL rises by more than this.
_KL_RISE = 0.5

# Nats of a response. Of the runs in docs/experiments.md, all that collapsed had passed it some ten
# steps before; of the others one in nine did.
_MAX_DRIFT = 0.5

_CALMER = "lower lr, or use one minibatch a rollout"

NOT_FINITE = (
    "the {} is not finite; the weights before this update are in the last checkpoint: lower lr or "
    "raise warmup_steps, then --resume or start anew"
)
"""What a run is stopped with whose loss or gradient is no number."""


class _Step(NamedTuple):
    """One step: mean reward of its prompts, mean of its square, mean KL, variance of that mean."""

    reward: float
    square: float
    kl: float
    kl_variance: float


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Means over some steps in a row, with standard errors; the KL is in nats of a response."""

    reward: float
    reward_error: float
    kl: float
    kl_error: float
    num_prompts: int

    @classmethod
    def of(cls, steps: Sequence[_Step], prompts_per_step: int) -> "_Stretch":
        count, num_prompts = len(steps), len(steps) * prompts_per_step
        reward, square, kl, kl_variance = (sum(each) / count for each in zip(*steps, strict=True))
        return cls(
            reward=reward,
            reward_error=math.sqrt(max(0.0, square - reward**2) / num_prompts),
            kl=kl,
            kl_error=math.sqrt(kl_variance / count),
            num_prompts=num_prompts,
        )

    def worsened_since(self, best: "_Stretch") -> bool:
        """Whether the reward is down and the KL up from `best`, each beyond chance."""
        fall, rise = best.reward - self.reward, self.kl - best.kl
        if fall <= 0 or rise <= max(_KL_RISE, 0.5 * best.kl):
            return False
        # If both had one mean, half of the fall would be spread that neither sees: of stretches
        # that are all right and all wrong this is everything.
        unseen = (fall / 2) ** 2 * (1 / self.num_prompts + 1 / best.num_prompts)
        error = math.sqrt(best.reward_error**2 + self.reward_error**2 + unseen)
        rise_error = math.hypot(best.kl_error, self.kl_error)
        return fall > _SIGNIFICANT * error and rise > _SIGNIFICANT * rise_error


class HealthWatch:
    """Judges a run by its latest steps. Feed it every step's metrics, in order."""

    def __init__(
        self,
        prompts_per_step: int,
        mode: HealthMode = "stop",
        history: Iterable[Mapping[str, float]] = (),
    ) -> None:
        """Takes in the steps that a resumed run has behind it, without warning of them again.

        Mode `stop` raises, `warn` says the same and goes on, `off` does not look.
        """
        self._prompts_per_step = prompts_per_step
        self._mode = mode
        self._steps: deque[_Step] = deque(maxlen=max(WINDOWS))
        self._best: dict[int, _Stretch] = {}
        # Falls are measured from here, so that rewards of -1 and 1 are judged like 0 and 1.
        self._lowest_reward = 0.0
        self._steps_bad = {"kl": 0, "collapse": 0}
        self._warned: set[str] = set()
        for metrics in history:
            self._take(metrics)

    def check(self, metrics: Mapping[str, float]) -> None:
        """Takes in one step.

        Args:
            metrics: Needs `reward`, `reward_se`, `reward_min`, `kl`, `kl_se`, `engine_kl`,
                `engine_kl_std`, `truncated_share`, and `drift` where a rollout gives several
                updates.

        Raises:
            TrainingStopped: In mode `stop`, KL is clearly negative, or the reward has collapsed.
        """
        if self._mode == "off":
            return
        for kind, message in self._take(metrics).items():
            if self._mode == "stop" and self._steps_bad.get(kind, 0) > PATIENCE:
                raise TrainingStopped(
                    f"{message}; where this is no harm, --resume with --health warn goes on"
                )
            if kind not in self._warned:
                self._warned.add(kind)
                logger.warning(message)

    def _take(self, metrics: Mapping[str, float]) -> dict[str, str]:
        """Takes in one step; returns what is wrong by kind."""
        spread = self._prompts_per_step * metrics["reward_se"] ** 2
        self._steps.append(
            _Step(
                reward=metrics["reward"],
                square=metrics["reward"] ** 2 + spread,
                # Of what the engine sampled, relative to the reference. The policy's own `kl` on
                # these samples is not quite a KL where the engine rounds differently.
                kl=metrics["kl"] + metrics["engine_kl"],
                kl_variance=metrics["kl_se"] ** 2,
            )
        )
        self._lowest_reward = min(self._lowest_reward, metrics["reward_min"])
        found = _drift(metrics) | _truncation(metrics)
        steps = list(self._steps)
        for size in WINDOWS:
            if len(steps) >= size:
                found |= self._judge(size, _Stretch.of(steps[-size:], self._prompts_per_step))
        for kind in self._steps_bad:
            self._steps_bad[kind] = self._steps_bad[kind] + 1 if kind in found else 0
        return found

    def _judge(self, size: int, now: _Stretch) -> dict[str, str]:
        """Compares a stretch with the best one of its length; returns what is wrong by kind."""
        if now.kl < -_SIGNIFICANT * now.kl_error - 0.02:
            return {
                "kl": f"the KL to the reference is {now.kl:.3f} +- {now.kl_error:.3f} over {size} "
                "steps; a KL cannot be negative: masks, positions or sampling do not match (please "
                "report it)"
            }
        best = self._best.setdefault(size, now)
        if now.reward >= best.reward:
            self._best[size] = now
            return {}
        left = (now.reward - self._lowest_reward) / (best.reward - self._lowest_reward)
        if left > 0.7 or not now.worsened_since(best):
            return {}
        change = (
            f"the reward fell from {best.reward:.3f} to {now.reward:.3f} (over {size} steps) while "
            f"the KL rose from {best.kl:.2f} to {now.kl:.2f}"
        )
        if left < 0.2:
            return {"collapse": f"{change}: the policy has collapsed; {_CALMER}"}
        return {"decline": f"{change}; if it goes on, {_CALMER}"}


def _drift(metrics: Mapping[str, float]) -> dict[str, str]:
    # Less the difference that the engine's rounding alone makes.
    drift = metrics.get("drift", 0.0) - metrics["engine_kl_std"]
    if drift <= _MAX_DRIFT:
        return {}
    return {
        "drift": f"between the updates of one rollout the policy moves {drift:.2f} nats a "
        "response: the later ones learn from what it would no longer write, which tends to end in "
        f"collapse; {_CALMER}"
    }


def _truncation(metrics: Mapping[str, float]) -> dict[str, str]:
    share = metrics["truncated_share"]
    if share <= 0.5:
        return {}
    return {
        "truncated": f"{share:.0%} of responses were cut at the token limit, so their rewards say "
        "little; estimate and train with a larger max_new_tokens"
    }
