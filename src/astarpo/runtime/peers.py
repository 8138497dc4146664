"""What the ranks of a job tell each other beside their work: that they live, stop, or have failed.

It goes through torch.distributed's key-value store, which a thread of each rank looks at once a
second. So a rank that waits for the others can tell which one is dead or hangs, a signal to one
reaches all, and where one has failed the others do not compute on for nothing.
"""

import logging
import threading
import time
from contextlib import suppress
from typing import Any

from astarpo.runtime import stopping
from astarpo.runtime.launch import TIMEOUT

logger = logging.getLogger("astarpo")

_PERIOD_S = 1.0
"""Between two signs of life."""

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.0005, 0.001
"""Between two looks at whether the others have come, the longest for each rank: a thousand looks a
second are no load for the store."""

_SILENT_S = 60.0
"""A process that lives is never silent for so long: longer than any call that keeps Python's
threads from running."""

_SILENT_AT_THE_END_S = 6.0
"""The same once the job is to end, which torchrun makes it do within 30 seconds of a death."""


class PeerFailed(RuntimeError):
    """Another rank has failed, and says itself why."""


class PeerLost(PeerFailed):
    """Another rank is dead or hangs, and cannot say so itself."""


class PeerLate(RuntimeError):
    """The other ranks have not come within the patience of this one."""


class Peers:
    """This rank's side of what all tell each other; `meet` is where they wait for each other."""

    def __init__(self, store: Any, rank: int, size: int, timeout_s: float) -> None:
        """Begins to show that this rank lives.

        Args:
            store: A store of torch.distributed, for this alone.
            rank: This one's number.
            size: How many there are.
            timeout_s: Seconds without progress after which a rank counts as hanging.
        """
        self.rank, self.size, self._timeout_s = rank, size, timeout_s
        self._store, self._own = store, store.clone()  # for the thread, which must not wait
        self._number, self._is_waiting = 0, False
        self._beats = 0
        self._last: dict[int, tuple[bytes, bytes, float, float]] = {}
        self._show(self._own)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="astarpo-peers", daemon=True)
        self._thread.start()

    def meet(self, patience_s: float | None = None) -> None:
        """Waits until every rank has come here as often as this one.

        Args:
            patience_s: How long to wait at most; None for as long as the others live and work.

        Raises:
            PeerLost: A rank that has not come is dead or hangs.
            PeerLate: The patience is at its end.
        """
        started = time.monotonic()
        if not self._is_waiting:  # Else an interrupt has called it away, and it comes again.
            self._number += 1
            self._is_waiting = True
            if self._store.add(f"came/{self._number}", 1) == self.size:
                self._store.set(f"all/{self._number}", "")
                for name in ("came", "all"):  # Everyone has left the meeting before this one.
                    self._store.delete_key(f"{name}/{self._number - 1}")
        while not self._have_come():
            self._require_life()
            if patience_s is not None and time.monotonic() - started > patience_s:
                raise PeerLate
        self._is_waiting = False

    def announce_failure(self) -> None:
        """Has the others give up what they are at."""
        self._store.set("failed", str(self.rank))

    def is_first_to(self, what: str) -> bool:
        """Whether no other rank has claimed something to do."""
        return self._store.add(f"claimed/{what}", 1) == 1

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._thread.join(timeout=2 * _PERIOD_S)
        stopping.give_up(False)

    def _have_come(self) -> bool:
        """Waits a second for all ranks to come to this meeting."""
        stopping.show_life()
        pause_s, until = _SHORTEST_PAUSE_S, time.monotonic() + _PERIOD_S
        # Asked for again and again: to wait in the store keeps signals waiting too.
        while not self._store.check([f"all/{self._number}"]):
            if time.monotonic() > until:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, self.size * _LONGEST_PAUSE_S)
        return True

    def _require_life(self) -> None:
        """Refuses to wait any longer for a rank that is dead or hangs."""
        is_ending = stopping.is_stopping() or self._store.check(["stop"])
        silent_s = _SILENT_AT_THE_END_S if is_ending else min(_SILENT_S, self._timeout_s)
        now = time.monotonic()
        for rank in set(range(self.size)) - {self.rank}:
            if not self._store.check([f"life/{rank}"]):
                continue
            life = self._store.get(f"life/{rank}")
            beat, signs, met = life.split()
            last_beat, last_signs, beat_at, sign_at = self._last.get(rank, (b"", b"", now, now))
            beat_at = now if beat != last_beat else beat_at
            sign_at = now if signs != last_signs else sign_at
            self._last[rank] = (beat, signs, beat_at, sign_at)
            if int(met) >= self._number:
                continue
            if now - beat_at > silent_s:
                raise PeerLost(
                    f"rank {rank} is dead or halted; what is on disk is whole, and the same "
                    "command goes on from there (train: with --resume)"
                )
            if now - sign_at > self._timeout_s:
                raise PeerLost(
                    f"rank {rank} hangs: it has done nothing for {self._timeout_s:.0f} s; where "
                    f"that is no wonder, set {TIMEOUT} to more seconds"
                )

    def _watch(self) -> None:
        has_told = False
        with suppress(RuntimeError):  # The store is gone, and so is the job.
            while not self._closed.wait(_PERIOD_S):
                self._show(self._own)
                if not has_told and stopping.is_stopping():
                    self._own.set("stop", str(self.rank))
                    has_told = True
                if self._own.check(["stop"]):
                    stopping.request_stop()
                if self._own.check(["failed"]):
                    stopping.give_up()

    def _show(self, store: Any) -> None:
        self._beats += 1
        store.set(f"life/{self.rank}", f"{self._beats} {stopping.signs_of_life()} {self._number}")
