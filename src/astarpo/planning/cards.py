"""What cards hold and do at best, by their makers' data sheets; and the machine at hand.

Flops are those of dense matrix products in bfloat16.
"""

import os
import re
from dataclasses import dataclass

import torch

from astarpo.runtime.words import did_you_mean
from astarpo.types import UserError

_GIB = 2**30


@dataclass(frozen=True)
class Card:
    """One device that a model may be trained on.

    Attributes:
        name: As it is called in tables.
        memory: Bytes that programs can use.
        bandwidth: Bytes of its memory that it reads a second; None where it is not known.
        flops: Floating-point operations a second; None where they are not known.
        is_gpu: Whether it computes in bfloat16 and needs memory for itself, as a GPU does.
    """

    name: str
    memory: int
    bandwidth: float | None = None
    flops: float | None = None
    is_gpu: bool = True


def _card(name: str, gib: float, bandwidth: float, flops: float) -> Card:
    return Card(name, int(gib * _GIB), bandwidth * 1e12, flops * 1e12)


CARDS = {
    card.name.casefold(): card
    for card in (
        _card("B200", 178, 8.0, 2250),
        _card("H200", 139.8, 4.8, 989),
        _card("H100", 79.6, 3.35, 989),
        _card("A100-80", 79.2, 2.04, 312),
        _card("A100-40", 39.4, 1.555, 312),
        _card("L40S", 44.4, 0.864, 362),
        _card("A10", 22.0, 0.6, 125),
        _card("L4", 22.0, 0.3, 121),
        _card("RTX-4090", 23.5, 1.008, 165),
        _card("RTX-3090", 23.5, 0.936, 71),
        _card("RTX-4080", 15.6, 0.717, 97),
    )
}
"""Cards by name. Memory is what programs see of it, a little less than the maker names."""


def find_card(name: str | None, device: str) -> Card:
    """The card that is planned for.

    Args:
        name: Of a card, its memory in GiB, or `cpu`; None for what is at hand.
        device: The setting `device`, which counts where there is no name.

    Raises:
        UserError: There is no such card.
    """
    if name is None:
        return _at_hand(device)
    known = re.sub(r"[\s_]+", "-", name.strip()).casefold()
    if known == "cpu":
        return _cpu()
    if known in CARDS:
        return CARDS[known]
    if size := re.fullmatch(r"(\d+(?:\.\d+)?)-?(?:gib|gb)?", known):
        if not float(size[1]):
            raise UserError(f"card {name}: a GPU has some memory; give it in GiB, such as 80")
        return Card(f"GPU of {float(size[1]):g} GiB", int(float(size[1]) * _GIB))
    names = [card.name for card in CARDS.values()]
    hint = did_you_mean(name.upper(), names)
    raise UserError(
        f"card {name}: is none of {', '.join(names)}{hint}; another one: give its memory in GiB, "
        "such as 80"
    )


def _at_hand(device: str) -> Card:
    if device == "cpu" or not torch.cuda.is_available():
        return _cpu()
    properties = torch.cuda.get_device_properties(0)
    called = re.sub(r"[\s_]+", "-", properties.name).casefold()
    for key, card in CARDS.items():
        if key.split("-")[-1 if key.startswith("rtx") else 0] in called:
            rates = card.bandwidth, card.flops
            return Card(properties.name, properties.total_memory, *rates)
    return Card(properties.name, properties.total_memory)


def _cpu() -> Card:
    """This machine without a GPU. What its processor could do is a guess: nothing says it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = os.cpu_count() or 1
    return Card("this machine's CPU", memory, 2e10, 3e10 * cores, is_gpu=False)
