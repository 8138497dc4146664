"""How far two ways to compute the same log-probs may differ, and how far they do.

Shapes: _R values of some sequences' response tokens, one sequence after the other.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from astarpo.models.sharded import device_of

logger = logging.getLogger("astarpo")

Name = TypeVar("Name", bound=str)

# Nats a token, in the mean over a response. Rounding makes about 1e-6 of it in fp32, and up to
# .02 in bf16.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
_COARSE_TOLERANCE = 0.05

# Shorter sequences are not told apart by their length.
_SHORTEST = 64

# What configs call the longest sequence that a model has positions for.
_LIMITS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length")


def tolerance(model: Any) -> float:
    """Nats a token that rounding explains, in the dtype that a model computes in."""
    kind = device_of(model).type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
    return _TOLERANCE.get(dtype, _COARSE_TOLERANCE)


def gap(ours_R: Tensor, theirs_R: Tensor, lengths: Sequence[int]) -> float:
    """The mean difference a token, in nats, of the sequence where that is largest.

    Args:
        ours_R: [R] log-probs, or other values as [R, X].
        theirs_R: The same, computed in another way.
        lengths: How many of the R belong to each sequence.
    """
    apart = (ours_R.float() - theirs_R.float()).abs().split(list(lengths))
    worst = max((float(part.mean()) for part in apart if part.numel()), default=0.0)
    return float("inf") if worst != worst else worst


def reach(model: Any, longest: int) -> int:
    """The length at which to try a model out before it meets sequences of up to `longest`.

    A window or a change of positions that a model has shows only in sequences long enough, so
    lengths are told apart by powers of two, up to what the model has positions for.
    """
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in _LIMITS]
    limit = next((n for n in limits if isinstance(n, int) and n >= longest), longest)
    if not any(isinstance(n, int) for n in limits):
        limit = 2 * longest
    return min(max(_SHORTEST, 1 << (longest - 1).bit_length()), max(limit, longest))


def first_fitting(
    model: Any, ways: Mapping[Name, str], apart: Callable[[Name], float], subject: str, misfit: str
) -> Name | None:
    """The first of several ways to compute something that gives the right results, if one does.

    Args:
        model: What is computed with.
        ways: By name, the fastest first; each with what is done where it does not fit.
        apart: How far the results of a way are from the right ones, in nats a token.
        subject: The way in a message, with `{}` for its name.
        misfit: What is said of one that is too far off, with `{}` for its distance.
    """
    for way, instead in ways.items():
        name = subject.format(way)
        try:
            distance = apart(way)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Models differ in too many ways to foresee how one fails.
            tell_slower(model, f"{name} failed ({describe_error(error)})", instead)
            continue
        if distance <= tolerance(model):
            return way
        found = misfit.format(f"{distance:.2g}")
        logger.warning(f"{type(model).__name__}: {name} {found}; {instead}")
    return None


def tell_slower(model: Any, reason: str, instead: str) -> None:
    """Logs why a model cannot be computed in the fast way, and what is done in its place.

    On a GPU the slower ways cost several times the time, so that it is a warning there. On a CPU
    whole families of models take them, at little cost.
    """
    level = logging.WARNING if device_of(model).type == "cuda" else logging.INFO
    logger.log(level, f"{type(model).__name__}: {reason}; {instead}")


def describe_error(error: Exception) -> str:
    """The type of an exception and the first line of what it says."""
    first, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first}"
