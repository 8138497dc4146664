r"""V* that knows nothing of a problem: controls, to see what an estimate of V* is worth (stage 1).

    zero:        V^(x) = 0
    constant:    V^(x) = beta_1 ln( mean over all samples of all problems of exp(r / beta_1) )

No source: neither is a method. A task on which A*-PO learns as well with one of them cannot tell
estimators apart. With `zero` the regression's target is the reward alone, so that every answer that
earns one is pushed up and none is pushed down. With `constant` wrong answers are pushed down too,
but a right answer counts the same whether its problem is hard or easy.

Shapes: _P problems, _N samples of one problem.
"""

from dataclasses import dataclass

import numpy as np

from astarpo.values.estimators import Estimator, Floats, ValueEstimate, optimal_values


@dataclass(frozen=True)
class Zero(Estimator):
    """V* = 0 for every problem.

    Attributes:
        beta1: Makes no difference.
    """

    beta1: float

    def estimate(self, rewards_PN: Floats) -> ValueEstimate:
        """Zeros, whose error is not known."""
        nothing_P = np.zeros(len(rewards_PN))
        return ValueEstimate(nothing_P, np.full_like(nothing_P, np.nan))


@dataclass(frozen=True)
class Constant(Estimator):
    """One V* for all problems: that of their samples taken together.

    Attributes:
        beta1: From 0 (the largest reward of all) to inf (the mean of all).

    Example:
        >>> Constant(math.inf).estimate(np.array([[1.0, 1.0], [0.0, math.nan]])).v_star_P.round(3)
        array([0.667, 0.667])
    """

    beta1: float

    def estimate(self, rewards_PN: Floats) -> ValueEstimate:
        """One value, in which every sample counts the same; its error as V* is not known."""
        rewards = rewards_PN[~np.isnan(rewards_PN)]
        value = float(optimal_values(rewards, self.beta1)) if len(rewards_PN) else np.nan
        value_P = np.full(len(rewards_PN), value)
        return ValueEstimate(value_P, np.full_like(value_P, np.nan))
