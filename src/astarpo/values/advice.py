r"""What more samples of a value table would be worth, and how many there should be.

With success rates p ~ Beta(a, b) over problems, A = a + b and beta_1 = inf, the mean squared error
of V* from n samples of each problem is, with s = E p(1 - p) = ab / (A (A + 1)):

    plugin   s / n              shrunk   s / (A + n)

so the prior is worth A samples of each problem. Training regresses on r - V^: where V^ is only a
baseline, the noise of its gradient has variance s + error^2: s (1 + 1/n), or s (1 + 1/(A + n)).
K passes over the problems cost K samples of each, stage 1 n; of equal cost, they learn most where
(n + K) (1 + 1/(A + n)) is least:

    n = sqrt(K - A) - A         (A = 0 for plugin: n = sqrt(K)), and at least 1

Imports no torch: reports read this.

Shapes: _P problems, _N samples of one problem.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from astarpo.config import TrainConfig
from astarpo.values.estimators import Estimator, Floats
from astarpo.values.prior import Beta, chance_of_all, fit_beta_prior

_PASSES = TrainConfig.model_fields["epochs"].default


@dataclass(frozen=True)
class Advice:
    """How well V* is known, now and after as many samples of each problem again.

    Attributes:
        error: Root mean square error of V* over problems, in units of reward, as the estimator
            states it; NaN where it is not known, as from one sample of each.
        error_at_twice: What it is expected to be with twice the samples of each problem.
        unsolved: Share of problems of which no sample has a reward above 0.
        unsolved_at_twice: What that is expected to be; NaN where rewards are not 0 and 1.
        prior: How success rates are spread over problems; None where that is not known.
    """

    error: float
    error_at_twice: float
    unsolved: float
    unsolved_at_twice: float
    prior: Beta | None

    def facts(self) -> dict[str, Any]:
        """The same for JSON, with the rule of thumb for N; None where a number is not known."""
        known = {k: None if v != v else v for k, v in asdict(self).items()}
        if self.prior is None:
            return known
        rule = {"passes": _PASSES, "shrunk": best_samples(_PASSES, sum(self.prior))}
        return known | {"best_samples": rule | {"plugin": best_samples(_PASSES, 0.0)}}

    def lines(self) -> list[str]:
        """The same for people, in one line or two."""
        if math.isnan(self.error):
            error = "the error of V* is not known from these samples"
        else:
            error = (
                f"error of V* {self.error:.3f} (root mean square, in units of reward), with twice "
                f"the samples {self.error_at_twice:.3f}"
            )
        unsolved = f"unsolved {self.unsolved:.1%} of problems"
        if self.prior is None:
            return [f"{error}; {unsolved}"]
        unsolved += f", with twice the samples {self.unsolved_at_twice:.1%}"
        rule = self.facts()["best_samples"]
        return [
            f"{error}; {unsolved}",
            f"success rates are spread like Beta({self.prior.a:.2g}, {self.prior.b:.2g}), worth "
            f"{sum(self.prior):.2g} samples of each problem to estimator shrunk; rule of thumb for "
            f"{_PASSES} passes of training: N = {rule['shrunk']}, with plugin {rule['plugin']}",
        ]


def advise(rewards_PN: Floats, estimator: Estimator) -> Advice:
    """What is known of V* and what more samples would be worth.

    Args:
        rewards_PN: [P, N], NaN where a problem has no such sample; each has at least one.
        estimator: How V* is estimated.
    """
    there_PN = ~np.isnan(rewards_PN)
    count_P, right_P = there_PN.sum(axis=1), (rewards_PN == 1).sum(axis=1)
    unsolved_P = ~((rewards_PN > 0) & there_PN).any(axis=1)
    prior, unsolved_at_twice = None, math.nan
    if set(np.unique(rewards_PN[there_PN])) <= {0.0, 1.0} and count_P.max() > 1:
        prior = fit_beta_prior(right_P, count_P)
        stays = {n: chance_of_all(prior.b + n, prior.a, n) for n in set(count_P.tolist())}
        unsolved_at_twice = sum(stays[n] for n in count_P[unsolved_P].tolist()) / len(count_P)
    return Advice(
        error=_root_mean_square(estimator.estimate(rewards_PN).standard_error_P),
        error_at_twice=_root_mean_square(estimator.errors_after(rewards_PN, count_P)),
        unsolved=float(unsolved_P.mean()),
        unsolved_at_twice=unsolved_at_twice,
        prior=prior,
    )


def best_samples(passes: float, prior_samples: float) -> int:
    """The rule of thumb for N; see the head of this file.

    Args:
        passes: K, passes over the problems in training, with one sample of each problem a pass.
        prior_samples: A, what the prior is worth; 0 for plugin.
    """
    best = math.sqrt(max(0.0, passes - prior_samples)) - prior_samples
    return max(1, round(best))


def _root_mean_square(error_P: Floats) -> float:
    return float(np.sqrt(np.mean(error_P**2)))
