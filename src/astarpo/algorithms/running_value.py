r"""A prompt's chance of success, estimated as training goes: a Beta posterior that forgets.

    start     a = W v_0, b = W (1 - v_0),  v_0 = (k + 1/2) / (N + 1),  W = 1 / (1 - rho_min)
    value     v = a / (a + b)
    drift     D = mean_t |ln pi(y_t) - ln pi_y(y_t)|
    memory    rho = clamp(2^(-D / D_half), rho_min, rho_max)
    update    a <- rho a + r,  b <- rho b + 1 - r
    weight    sqrt(v (1 - v)) + epsilon, by which the next prompts are drawn

with k successes in N samples of the reference, y the prompt's answer before the present one, pi_y
the policy that wrote it and pi the policy now: the more the policy has changed since, the less is
remembered. W is the number of samples that a tracker at rho_min remembers.

Source: arXiv 2509.13232 and the code published with it (recipe/spo of verl): D_half = 0.06, rho
from 0.875 to 0.96, epsilon = 0.05. Deviations:

- Both log-probs in D are those before the step's update, of the policy that samples; the published
  code takes both after it. Either way as many updates lie between them.
- A prompt that is answered several times in a step forgets once.

Shapes: _P prompts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RunningValue:
    """The rule by which values run.

    Attributes:
        half_drift: D_half: a drift, in nats a token, that halves what is remembered.
        rho_min: Least that is remembered from one answer to the next.
        rho_max: Most.
        exploration: epsilon, so that prompts of which all is known are drawn at times.

    Example:
        >>> rule = RunningValue()
        >>> counts_P2 = rule.start(rule.first_values([0.5, 1.0], [8, 8]))
        >>> rule.values(counts_P2).round(3).tolist()
        [0.5, 0.944]
    """

    half_drift: float = 0.06
    rho_min: float = 0.875
    rho_max: float = 0.96
    exploration: float = 0.05

    def first_values(self, mean_P: ArrayLike, num_samples_P: ArrayLike) -> Floats:
        """[P]: v_0, from the mean reward and the number of the reference's samples."""
        count_P = np.asarray(num_samples_P, dtype=np.float64)
        return (np.asarray(mean_P) * count_P + 0.5) / (count_P + 1)

    def start(self, first_P: ArrayLike) -> Floats:
        """[P, 2]: a and b of prompts whose v_0 are given."""
        first_P = np.asarray(first_P, dtype=np.float64)
        return np.stack([first_P, 1 - first_P], axis=-1) / (1 - self.rho_min)

    def values(self, counts_P2: Floats) -> Floats:
        """[P]: v."""
        return counts_P2[..., 0] / counts_P2.sum(axis=-1)

    def weights(self, counts_P2: Floats) -> Floats:
        """[P]: how often each prompt is drawn, up to a factor."""
        value_P = self.values(counts_P2)
        return np.sqrt(value_P * (1 - value_P)) + self.exploration

    def refusal(self, lowest: float, highest: float) -> str | None:
        """Why rewards of this range cannot be counted as successes; None if they can."""
        if lowest >= 0 and highest <= 1:
            return None
        return (
            f"a running value counts rewards from 0 (failure) to 1 (success), and one is "
            f"{lowest if lowest < 0 else highest:g}: give another --algorithm, or judge from 0 to 1"
        )

    def memory(self, drift: float) -> float:
        """rho, from D in nats a token."""
        return min(max(2 ** (-drift / self.half_drift), self.rho_min), self.rho_max)

    def updated(self, counts_2: Floats, reward: float, memory: float) -> Floats:
        """[2]: a and b of one prompt after another answer.

        Args:
            counts_2: [2] before it.
            reward: From 0 to 1.
            memory: rho.
        """
        return memory * counts_2 + np.array([reward, 1 - reward])
