"""How work is cut into shares, one for each process."""

from collections.abc import Sequence
from itertools import accumulate


def shares(lengths: Sequence[int], size: int) -> list[range]:
    """Cuts items into one run of neighbours for each of so many ranks, of about equal length.

    An item goes where its middle falls, so that no rank has more than its share and one item.

    Args:
        lengths: How much work each item is.
        size: How many ranks there are; with fewer items some of them get none.
    """
    ends = list(accumulate(lengths))
    total = ends[-1] if ends else 0
    if total == 0:  # Nothing is known of them: so many each.
        return shares([1] * len(lengths), size) if lengths else [range(0)] * size
    middles = [end - length / 2 for end, length in zip(ends, lengths, strict=True)]
    owner = [min(size - 1, int(middle * size / total)) for middle in middles]
    edges = [next((i for i, o in enumerate(owner) if o >= r), len(owner)) for r in range(size)]
    return [range(start, end) for start, end in zip(edges, [*edges[1:], len(owner)], strict=True)]
