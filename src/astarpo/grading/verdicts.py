"""Counts of verdicts for the log, with warnings where many answers were cut off or not judged."""

import logging
from collections.abc import Mapping

logger = logging.getLogger("astarpo")

WARN_FROM = 0.1
"""From this share of answers on there is a warning: rewards then say too little of the policy."""

_NOT_JUDGED = {
    "timeout": "the verifier did not finish in time; to a reward function give a larger "
    "--grade-timeout",
    "error": "the verifier failed, or its process was killed",
}


def tell_verdicts(what: str, statuses: Mapping[str, int], truncated_share: float) -> None:
    """Logs how many answers have each status and how many were cut off, and warns of many.

    Args:
        what: Whose answers they are; the lines begin with it.
        statuses: Number of answers by status.
        truncated_share: Share of answers that the token limit cut off.
    """
    total = sum(statuses.values())
    listed = ", ".join(f"{name} {count}" for name, count in statuses.items() if count)
    logger.info(f"{what}: verdicts of {total} answers: {listed}; truncated {truncated_share:.1%}")
    warn_of_verdicts(what, statuses, truncated_share)


def warn_of_verdicts(what: str, statuses: Mapping[str, int], truncated_share: float) -> None:
    """The warnings of `tell_verdicts` alone."""
    total = sum(statuses.values())
    for status, reason in _NOT_JUDGED.items():
        share = statuses.get(status, 0) / total
        if share >= WARN_FROM:
            logger.warning(
                f"{what}: {share:.0%} of {total} answers count as wrong though nobody judged them "
                f"(status {status}): {reason}"
            )
    if truncated_share >= WARN_FROM:
        logger.warning(
            f"{what}: {truncated_share:.0%} of {total} answers were cut at the token limit, and "
            "most such count as wrong; give a larger --max-new-tokens"
        )
