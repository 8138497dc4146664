"""What attacks found."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.crash.server import Outcome

EQUAL, TOLD, REFUSED = "equal", "told", "refused"
DIFFERS, SILENT, TRACEBACK, HUNG, UNRULY = "differs", "silent", "traceback", "hung", "unruly"
GOOD = {EQUAL, TOLD, REFUSED}


@dataclass(frozen=True)
class Finding:
    """One attempt.

    Attributes:
        attack: Such as `kill at an operation`.
        subject: The command, or the file, attacked.
        case: Where or how, for doing it again.
        result: `equal`: as if nothing had happened. `told`: another result, and a line that names
            what is wrong. `refused`: one line, exit 2. All others are faults: `differs`, `silent`
            (another result, and nobody says so), `traceback`, `hung`, `unruly` (no such ending was
            promised).
        detail: What differs, or the last line that was printed.
    """

    attack: str
    subject: str
    case: str
    result: str
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether a promise is broken."""
        return self.result not in GOOD


def ending(outcome: Outcome) -> str | None:
    """What is wrong with how a process ended, None where it is exit 0 or one line with exit 2."""
    if outcome.hung:
        return HUNG
    if outcome.has_traceback:
        return TRACEBACK
    return None if outcome.status == 0 or outcome.is_refusal else UNRULY


def last_line(outcome: Outcome) -> str:
    """What the user saw last, and the exit status."""
    lines = outcome.err.strip().splitlines() or [""]
    return f"status {outcome.status}: {lines[-1][:300]}"


def count(findings: Iterable[Finding]) -> dict[str, dict[str, int]]:
    """How many findings of each result, by attack and subject."""
    counts: dict[str, dict[str, int]] = {}
    for finding in findings:
        row = counts.setdefault(f"{finding.attack}: {finding.subject}", {})
        row[finding.result] = row.get(finding.result, 0) + 1
    return counts
