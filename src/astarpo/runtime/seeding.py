"""One rule for every random number: it is a function of the seed and of what it is for.

No generator state is carried from one step to the next, so nothing about randomness has to be
saved, and a sample does not depend on which others shared its batch.
"""

import hashlib
import json

import numpy as np
from numpy.typing import ArrayLike, NDArray


def derive_seed(*parts: str | int) -> int:
    """Hashes what a random stream is for into a 64-bit seed.

    Args:
        parts: The run's seed, the purpose, and identities such as a problem id and a sample index.
    """
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def uniforms(seed: int, count: int) -> NDArray[np.float32]:
    """The first `count` numbers in [0, 1) of a seed's stream, whatever `count` is."""
    return _generator(seed).random(count, dtype=np.float32)


def epoch_stream(seed: int, block: int, count: int, size: int) -> list[int]:
    """One block of an endless sequence of shuffled epochs: every item comes up equally often.

    Args:
        seed: Decides the order.
        block: Which block, from 0.
        count: Items in an epoch.
        size: Items in a block; it may be larger than an epoch.
    """
    positions = range(block * size, (block + 1) * size)
    epochs = {position // count for position in positions}
    orders = {epoch: _generator(derive_seed(seed, epoch)).permutation(count) for epoch in epochs}
    return [int(orders[position // count][position % count]) for position in positions]


def weighted_draw(seed: int, weights: ArrayLike, size: int) -> list[int]:
    """Draws items by their weights, without replacement unless more are wanted than there are.

    Args:
        seed: Decides the draw.
        weights: Of each item, above 0; only their ratios count.
        size: How many items.
    """
    shares = np.asarray(weights, dtype=np.float64)
    shares = shares / shares.sum()
    more = size > len(shares)
    return _generator(seed).choice(len(shares), size, replace=more, p=shares).tolist()


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))
