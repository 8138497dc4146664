r"""Samples where they are worth most: rounds of sampling, each planned from those before it.

What is known of a problem's success rate p after n samples, k of them right, is a distribution
Beta(k + a, n - k + b) with the prior of the shrunk estimator, or a wider one where problems are so
few that the prior is not sure (`values.prior`). With D the mean squared distance of V* from its
estimate by that, and A the sum of its two numbers:

    D(j) = D A / (A + j)                          what D is expected to be after j samples more
    gain = ( D(j - 1) - D(j) ) / tokens           of the j-th sample more, for each token it costs

A round is the samples of the greatest gain; the first gives each problem equally many. At
beta_1 = inf the first line is exact: E Var[p | j more] = Var[p] A / (A + j) of a Beta distribution.
Below, where V* is curved in p, it is the law for small spreads, off by 2% at beta_1 = .5; it only
chooses: the error that is stated does not rest on it. The tokens of a sample are taken as the mean
of its problem's samples, drawn towards the others' as V* is. Once a problem is known to be easy its
D is small, and it gets no more; so it is with hopeless ones, but at a small beta_1, where V* is
steep in small p, only after more samples.

A round depends on the samples of earlier rounds and on nothing else: not on the limit, which only
says where the rounds end, nor on which samples of the round itself are there. So the rounds of a
greater limit begin with those of a smaller one, and a run that was killed goes through the same.

Shapes: _P problems, _N samples of one problem, _PJ further samples of each, _R samples of a round.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from math import ceil, inf, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astarpo.types import UserError
from astarpo.values.estimators import Floats
from astarpo.values.shrinkage import Shrunk

_GROWTH = 0.25
"""A round's share of the samples before it: few rounds, each with enough to keep an engine full,
and none much larger than what is known by then bears."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Limit:
    """Where rounds end.

    Attributes:
        samples: Before there are more samples than this.
        tokens: Before there would be more tokens than this, by what samples cost so far.
        error: Once the root mean square error of V*, as the estimator states it, is this or less.
    """

    samples: float = inf
    tokens: float = inf
    error: float = 0.0


class Round(NamedTuple):
    """A round of sampling.

    Attributes:
        number: From 1.
        counts_P: [P] samples that each problem is to have, those of all rounds so far.
        error: The root mean square error of V* before it; NaN where that is not known.
    """

    number: int
    counts_P: Counts
    error: float = nan


def rounds(
    first_P: Counts,
    read: Callable[[Counts], list[Floats]],
    estimator: Shrunk,
    limit: Limit,
) -> Iterator[Round]:
    """Plans round after round.

    Args:
        first_P: [P] samples of each problem in the first round, at least 1.
        read: Gives the rewards and the numbers of tokens, [P, N] with NaN where there is none, of
            the first so many samples of each problem.
        estimator: By which V* is known.
        limit: Where to end.

    Yields:
        Each round, whose samples have to be there before the next is asked for. Where a part of it
        is expected to reach the limit's error, that part comes first, under the same number.

    Raises:
        UserError: Rewards have more than two values, or the first round is beyond the limit.
    """
    yield Round(1, first_P)
    counts_P = first_P
    for number in count(2):
        rewards_PN, tokens_PN = read(counts_P)
        error = stated_error(rewards_PN, estimator)
        if error <= limit.error:
            return
        spent = float(np.nansum(tokens_PN))
        if number == 2 and spent > limit.tokens:
            raise UserError(
                f"the first round took {spent:.0f} tokens, more than all of budget_tokens "
                f"{limit.tokens:.0f}: raise it, or give --samples {first_P.max()} without it"
            )
        place_R, expected_R = next_round(rewards_PN, tokens_PN, estimator)
        spent_R = spent + prices(tokens_PN)[place_R].cumsum()
        number_R = counts_P.sum() + np.arange(1, len(place_R) + 1)
        num_kept = int(((spent_R <= limit.tokens) & (number_R <= limit.samples)).sum())
        if num_kept == 0:
            return
        if (enough := np.flatnonzero(expected_R[:num_kept] <= limit.error)).size:
            part_P = _more(counts_P, place_R[: enough[0] + 1])
            yield Round(number, part_P, error)
            if stated_error(read(part_P)[0], estimator) <= limit.error:
                return
        counts_P = _more(counts_P, place_R[:num_kept])
        yield Round(number, counts_P, error)
        if num_kept < len(place_R):
            return


def next_round(rewards_PN: Floats, tokens_PN: Floats, estimator: Shrunk) -> tuple[Counts, Floats]:
    """The samples of the next round, those of the greatest gain first.

    No problem gets more than it has: what is known of it bears no more at a time.

    Args:
        rewards_PN: [P, N], NaN where a problem has no such sample.
        tokens_PN: [P, N] their tokens.
        estimator: By which V* is known.

    Returns:
        [R] for each sample, the place of its problem; and [R] what the root mean square error of V*
        is expected to be once it and those before it are there.

    Raises:
        UserError: Rewards have more than two values.
    """
    counts_P = (~np.isnan(rewards_PN)).sum(axis=1)
    levels = np.unique(rewards_PN[~np.isnan(rewards_PN)])
    if len(levels) > 2:
        raise UserError(
            "a budget or target error shares samples out by success rates, and these rewards have "
            f"{len(levels)} values, such as {levels[1]:g}: leave it out and give --samples alone "
            "(what is sampled is kept)"
        )
    squared_P, worth_P = estimator.knowledge(rewards_PN)
    further_J = np.arange(counts_P.max())
    after_PJ = worth_P[:, None] + further_J
    decrease_PJ = (squared_P * worth_P)[:, None] / (after_PJ * (after_PJ + 1))
    gain_PJ = decrease_PJ / prices(tokens_PN)[:, None]
    gain_PJ[further_J >= counts_P[:, None]] = -inf
    best_R = np.argsort(-gain_PJ, axis=None, kind="stable")  # Of equals, in the file's order.
    best_R = best_R[: ceil(_GROWTH * counts_P.sum())]
    left_R = squared_P.sum() - decrease_PJ.ravel()[best_R].cumsum()
    return best_R // len(further_J), np.sqrt(left_R / len(counts_P))


def stated_error(rewards_PN: Floats, estimator: Shrunk) -> float:
    """The root mean square error of V* over problems, as the estimator states it."""
    error_P = estimator.estimate(rewards_PN).standard_error_P
    return float(np.sqrt(np.mean(error_P**2)))


def _more(counts_P: Counts, place_R: Counts) -> Counts:
    return counts_P + np.bincount(place_R, minlength=len(counts_P))


def prices(tokens_PN: Floats) -> Floats:
    """[P] tokens that one more sample of each problem is taken to cost."""
    return Shrunk(inf).estimate(tokens_PN).v_star_P
