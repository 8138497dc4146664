"""Signs that a run is going wrong, and what to do about each. Sees metrics alone."""

import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping

from astarpo.types import TrainingStopped

logger = logging.getLogger("astarpo")

_WINDOW = 10

# Nats of a response. In docs/experiments.md all runs that came to ruin passed it first, some ten
# steps before, and of the others one in nine did.
_MAX_DRIFT = 0.5

_CALMER = "lower lr, or use one minibatch a rollout"


class HealthWatch:
    """Judges a run by its latest steps. Feed it every step's metrics, in order."""

    def __init__(self, history: Iterable[Mapping[str, float]] = ()) -> None:
        """Starts with the steps that a resumed run has behind it."""
        self._kls: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._rewards: deque[float] = deque(maxlen=_WINDOW)
        self._best_reward = -math.inf
        # A fall is measured from here: rewards of -1 and 1 are judged as those of 0 and 1.
        self._lowest_reward = 0.0
        self._kl_at_best = 0.0
        self._warned: set[str] = set()
        for metrics in history:
            self.check(metrics)

    def check(self, metrics: Mapping[str, float]) -> None:
        """Takes in one step.

        Args:
            metrics: Needs `reward`, `reward_min`, `kl`, `kl_se`, `engine_kl`, `engine_kl_std`,
                `truncated_share`, and `drift` where a rollout gives several updates.

        Raises:
            TrainingStopped: KL is clearly negative, or the reward has collapsed.
        """
        # What was sampled against the reference: this sum is a KL whatever the engine's rounding.
        kl = metrics["kl"] + metrics["engine_kl"]
        self._kls.append((kl, metrics["kl_se"]))
        self._rewards.append(metrics["reward"])
        self._lowest_reward = min(self._lowest_reward, metrics["reward_min"])
        if len(self._rewards) == _WINDOW:
            self._check_kl_sign()
            self._check_collapse()
        # What the engine's rounding alone makes of a response is no drift.
        drift = metrics.get("drift", 0.0) - metrics["engine_kl_std"]
        if drift > _MAX_DRIFT:
            self._warn(
                "drift",
                f"between the updates of one rollout the policy moves {drift:.2f} nats a response: "
                f"the later ones learn from what it would no longer write, which tends to end in "
                f"collapse; {_CALMER}",
            )
        if metrics["truncated_share"] > 0.5:
            self._warn(
                "truncated",
                f"{metrics['truncated_share']:.0%} of responses were cut at the token limit, so "
                "their rewards say little; estimate and train with a larger max_new_tokens",
            )

    def _check_kl_sign(self) -> None:
        mean = sum(kl for kl, _ in self._kls) / _WINDOW
        error = math.sqrt(sum(e * e for _, e in self._kls)) / _WINDOW
        if mean < -5 * error - 0.02:
            raise TrainingStopped(
                f"the KL to the reference is {mean:.3f} +- {error:.3f} over {_WINDOW} steps; a KL "
                "cannot be negative: masks, positions or sampling do not match (please report it)"
            )

    def _check_collapse(self) -> None:
        reward = sum(self._rewards) / _WINDOW
        kl = sum(kl for kl, _ in self._kls) / _WINDOW
        if reward >= self._best_reward:
            self._best_reward, self._kl_at_best = reward, kl
            return
        if kl <= 1.5 * self._kl_at_best:
            return
        left = (reward - self._lowest_reward) / (self._best_reward - self._lowest_reward)
        if left < 0.2:
            raise TrainingStopped(
                f"the reward fell from {self._best_reward:.3f} to {reward:.3f} while the KL rose "
                f"from {self._kl_at_best:.2f} to {kl:.2f}: the policy has collapsed; {_CALMER}"
            )
        if left < 0.7:
            self._warn(
                "collapse",
                f"the reward is down from {self._best_reward:.3f} to {reward:.3f} while the KL "
                f"climbs ({kl:.2f}); if it goes on, {_CALMER}",
            )

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(message)
