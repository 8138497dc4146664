"""What a plan says. Imports no torch: the command line shows it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """A plan of a run.

    Attributes:
        fits: Whether every stage fits into the memory of the devices.
        facts: All of it as JSON has it: sizes in bytes, times in seconds.
        text: All of it for people, in lines of at most 80 characters.

    Example:
        >>> plan = astarpo.plan(recipe="gsm8k", card="H100", num_problems=7473)
        >>> plan.fits, plan.facts["stages"]["train"]["steps"]
        (True, 730)
        >>> print(plan.text)
    """

    fits: bool
    facts: dict[str, Any]
    text: str

    def __str__(self) -> str:
        return self.text
