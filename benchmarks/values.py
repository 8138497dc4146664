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

A second table shares the same samples out in rounds (`astarpo estimate --budget-samples`): the true
error and the one that is stated, with as many samples as N for each problem; and how many samples a
problem it takes on average until the stated error (`--target-error`) is the plug-in's of 8. All
samples are taken to be equally long.

A third table holds the error that is stated (beta_1 = inf) to the true one where there are few:
root mean squares over many problem sets, and in how many of these less than half of the true
error was stated. One shape more has problems that are all alike, with a success rate of .43.
"""

import argparse
import math

import numpy as np

from astarpo.values.estimators import Floats, Plugin
from astarpo.values.rounds import Counts, Limit, rounds
from astarpo.values.shrinkage import Shrunk

_SHAPES = ("demo", "uniform", "u-shaped", "hard", "mixed")
_SAMPLES = (1, 2, 4, 8)
_BUDGETS = (4, 8)
_FIRST = 2
_MOST = 128
_SETS = {24: 300, 200: 60, 2000: 10}


def main() -> None:
    """Prints a table for each beta_1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    for beta in (0.5, math.inf):
        print(f"beta_1 = {beta}\n\n| shape | N | plugin | shrunk | least |\n|-|-|-|-|-|")
        for shape in _SHAPES:
            for num_samples in _SAMPLES:
                errors_S3 = [
                    _errors(shape, num_samples, beta, asked.problems, seed)
                    for seed in range(asked.seeds)
                ]
                cells = [f"{error:.3f}" for error in np.sqrt(np.mean(errors_S3, axis=0))]
                print(f"| {shape} | {num_samples} | {' | '.join(cells)} |", flush=True)
        print("\n| shape | N | equal | rounds | stated | plugin of 8 reached at |\n|-|-|-|-|-|-|")
        for shape in _SHAPES:
            for num_samples in _BUDGETS:
                found_S4 = [
                    _rounds(shape, num_samples, beta, asked.problems, seed)
                    for seed in range(asked.seeds)
                ]
                *errors_3, reached = np.mean(found_S4, axis=0)
                cells = [f"{error:.3f}" for error in np.sqrt(errors_3)]
                print(
                    f"| {shape} | {num_samples} | {' | '.join(cells)} | {reached:.2f} |", flush=True
                )
        print()
    print("| shape | problems | N | stated | true | under half |\n|-|-|-|-|-|-|")
    for shape in ("demo", "uniform", "u-shaped", "alike"):
        for num_problems, num_sets in _SETS.items():
            for num_samples in _SAMPLES[1:]:
                squares_S2 = np.array(
                    [_stated(shape, num_samples, num_problems, seed) for seed in range(num_sets)]
                )
                stated, true = np.sqrt(squares_S2.mean(axis=0))
                under = (4 * squares_S2[:, 0] < squares_S2[:, 1]).mean()
                row = f"{shape} | {num_problems} | {num_samples} | {stated:.3f} | {true:.3f}"
                print(f"| {row} | {under:.0%} |", flush=True)


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
        case "alike":
            return np.full(num_problems, 0.43)
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
    truth_P = _true_values(rate_P, beta)
    plugin, shrunk = (
        float(((kind(beta).estimate(rewards_PN).v_star_P - truth_P) ** 2).mean())
        for kind in (Plugin, Shrunk)
    )
    # The mean of V* over the problems with equally many successes is its best guess for them.
    groups = [truth_P[right_P == k] for k in np.unique(right_P)]
    least = sum(group.var() * len(group) for group in groups) / num_problems
    return plugin, shrunk, float(least)


def _rounds(
    shape: str, num_samples: int, beta: float, num_problems: int, seed: int
) -> tuple[float, float, float, float]:
    """Mean squared errors of `shrunk` with equal samples, in rounds, and as stated of the latter.

    The last number is the samples a problem at which rounds reach the plug-in's error of 8.
    """
    rng = np.random.default_rng(seed)
    rate_P = rates(shape, num_problems, rng)
    rewards_PN = (rng.random((num_problems, _MOST)) < rate_P[:, None]).astype(float)
    truth_P = _true_values(rate_P, beta)
    estimator, ones_P = Shrunk(beta), np.ones(num_problems, np.int64)

    def read(counts_P: Counts) -> list[Floats]:
        there_PN = np.arange(counts_P.max()) < counts_P[:, None]
        found_PN = np.where(there_PN, rewards_PN[:, : counts_P.max()], np.nan)
        return [found_PN, np.where(there_PN, 1.0, np.nan)]

    def last(limit: Limit) -> Counts:
        *_, end = rounds(_FIRST * ones_P, read, estimator, limit)
        return end.counts_P

    equal = estimator.estimate(rewards_PN[:, :num_samples]).v_star_P
    shared = estimator.estimate(read(last(Limit(samples=num_samples * num_problems)))[0])
    plain = Plugin(beta).estimate(rewards_PN[:, :8]).v_star_P
    target = float(np.sqrt(np.mean((plain - truth_P) ** 2)))
    return (
        float(np.mean((equal - truth_P) ** 2)),
        float(np.mean((shared.v_star_P - truth_P) ** 2)),
        float(np.mean(shared.standard_error_P**2)),
        float(last(Limit(error=target)).mean()),
    )


def _stated(shape: str, num_samples: int, num_problems: int, seed: int) -> tuple[float, float]:
    """Mean squares over the problems of one set: the error of `shrunk` as stated, and the true."""
    rng = np.random.default_rng(seed)
    rate_P = rates(shape, num_problems, rng)
    rewards_PN = (rng.random((num_problems, num_samples)) < rate_P[:, None]).astype(float)
    found = Shrunk(math.inf).estimate(rewards_PN)
    squared_P = (found.v_star_P - rate_P) ** 2
    return float(np.mean(found.standard_error_P**2)), float(squared_P.mean())


def _true_values(rate_P: Floats, beta: float) -> Floats:
    return rate_P if math.isinf(beta) else beta * np.log1p(rate_P * math.expm1(1 / beta))


if __name__ == "__main__":
    main()
