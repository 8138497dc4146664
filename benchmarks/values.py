"""How far V^ is from V* by estimator and number of samples, on problem sets of known difficulty.

    python benchmarks/values.py [--problems 4000] [--seeds 5]

Root mean square errors over problems and seeds, in units of reward. Shapes of difficulty:

    demo      success rates as the demo's policy has them: mean .43, standard deviation .17
    uniform   any success rate as likely as any other
    u-shaped  most problems nearly hopeless or nearly certain: Beta(.4, .4)
    hard      most problems nearly hopeless: Beta(.3, 3)
    mixed     a third nearly hopeless, a third nearly certain, a third between

The last column is the least error that any estimator could have from N samples a problem if it knew
the shape: what remains can only be had by more samples, or by knowing more of a problem.
"""

import argparse
import math

import numpy as np

from astarpo.values.estimators import Floats, Plugin
from astarpo.values.shrinkage import Shrunk

_SAMPLES = (1, 2, 4, 8)


def main() -> None:
    """Prints a table for each beta_1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    for beta in (0.5, math.inf):
        print(f"beta_1 = {beta}\n\n| shape | N | plugin | shrunk | least |\n|-|-|-|-|-|")
        for shape in ("demo", "uniform", "u-shaped", "hard", "mixed"):
            for num_samples in _SAMPLES:
                errors_S3 = [
                    _errors(shape, num_samples, beta, asked.problems, seed)
                    for seed in range(asked.seeds)
                ]
                cells = [f"{error:.3f}" for error in np.sqrt(np.mean(errors_S3, axis=0))]
                print(f"| {shape} | {num_samples} | {' | '.join(cells)} |")
        print()


def rates(shape: str, num_problems: int, rng: np.random.Generator) -> Floats:
    """[P] success rates of problems."""
    match shape:
        case "demo":
            return rng.beta(3.2, 4.24, num_problems)
        case "uniform":
            return rng.uniform(size=num_problems)
        case "u-shaped":
            return rng.beta(0.4, 0.4, num_problems)
        case "hard":
            return rng.beta(0.3, 3.0, num_problems)
    third_P = rng.integers(0, 3, num_problems)
    parts = [rng.beta(*ab, num_problems) for ab in ((1, 60), (40, 3), (2, 2))]
    return np.choose(third_P, parts)


def _errors(
    shape: str, num_samples: int, beta: float, num_problems: int, seed: int
) -> tuple[float, float, float]:
    """Mean squared errors: of both estimators, and the least possible."""
    rng = np.random.default_rng(seed)
    rate_P = rates(shape, num_problems, rng)
    right_P = rng.binomial(num_samples, rate_P)
    rewards_PN = (np.arange(num_samples) < right_P[:, None]).astype(float)
    truth_P = rate_P if math.isinf(beta) else beta * np.log1p(rate_P * math.expm1(1 / beta))
    plugin, shrunk = (
        float(((kind(beta).estimate(rewards_PN).v_star_P - truth_P) ** 2).mean())
        for kind in (Plugin, Shrunk)
    )
    # The mean of V* over the problems with equally many successes is its best guess for them.
    groups = [truth_P[right_P == k] for k in np.unique(right_P)]
    least = sum(group.var() * len(group) for group in groups) / num_problems
    return plugin, shrunk, float(least)


if __name__ == "__main__":
    main()
