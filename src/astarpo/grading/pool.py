"""The pool of verifier workers: each answer has a time limit that really holds.

Equality of mathematical expressions can take for ever, or for ever within one C call that no alarm
interrupts. So answers are judged in processes that end at the limit and are replaced. The limit is
CPU time, which the kernel counts: how busy the machine is does not decide what is right.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Self

from astarpo.grading.processes import (
    START_LIMIT_S,
    GradingRequest,
    Server,
    Worker,
    how_ended,
    used_up,
    wait_for,
)
from astarpo.types import UserError, Verdict

WALL_LIMIT_S = 30.0
WALL_FACTOR = 6
"""A verifier that sleeps uses no CPU time, so there is a limit by the clock as well: the larger of
`WALL_LIMIT_S` seconds and `WALL_FACTOR` times the CPU limit, since a busy machine stretches every
answer."""

PATIENCE_S = 0.25
"""A worker that takes more seconds than this is set aside: it goes on with its answer, and another
worker takes its place."""

MAX_ASIDE = 4
"""How many workers may be set aside for each one of `num_workers`."""

POLL_S = 0.05

MAX_REMEMBERED = 1000
"""How many answers that used up their CPU time are remembered, so as not to be tried again."""

logger = logging.getLogger("astarpo")


class GradingStopped(RuntimeError):
    """The caller's `should_stop` said yes before all answers were judged."""


class GradingPool:
    """Judges responses in worker processes that end at a time limit.

    Workers start at the first need and are kept for later calls; `close` ends them. Use it as a
    context manager. Calls from several threads take turns.
    """

    def __init__(self, num_workers: int, timeout_s: float, *, own_rewards: bool = False) -> None:
        """Makes a pool; no process is started yet.

        Args:
            num_workers: How many answers are judged at once. Answers that take long do not count
                towards it: others are judged beside them.
            timeout_s: CPU time for one answer, in seconds; verifiers that ship get 1 at most.
                Starting a worker and importing a verifier do not count towards it. By the clock an
                answer may take 6 times as long, and never less than 30 seconds.
            own_rewards: Whether requests may name reward functions (`reward:FILE.py:NAME`), which
                are then imported. The caller has to know that the user wants each of them to run.
        """
        assert num_workers >= 1, num_workers
        assert timeout_s > 0, timeout_s
        self._num_workers = num_workers
        self._cpu_limit_s = timeout_s
        self._wall_limit_s = max(WALL_LIMIT_S, WALL_FACTOR * timeout_s)
        self._own_rewards = own_rewards
        self._server: Server | None = None
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        self._versions: dict[str, str] = {}
        self._hung: dict[GradingRequest, Verdict] = {}
        self._complained: set[str] = set()

    def load(self, verifier: str) -> None:
        """Starts the processes for a verifier that ships, ahead of the first answer.

        Raises:
            UserError: It does not start, or the verifier cannot be loaded or judge here.
        """
        with self._lock:
            self._load(verifier)

    def grade(
        self, requests: Sequence[GradingRequest], should_stop: Callable[[], bool] = lambda: False
    ) -> list[Verdict]:
        """Judges every request; the verdicts come in the order of the requests.

        Equal requests are judged once. A request that outlasts the limit gets status `timeout`; one
        whose worker dies, or whose verifier raises, gets `error`; both have reward 0, and neither
        affects the others. The first error of each verifier is logged.

        Args:
            requests: What to judge.
            should_stop: Asked a few times a second; once it says yes, the call is given up.

        Raises:
            UserError: A worker does not start, or a verifier cannot be loaded or has changed.
            GradingStopped: `should_stop` said yes. The pool may be used again.
        """
        with self._lock:
            different = dict.fromkeys(requests)
            verdicts = {request: self._hung[request] for request in different & self._hung.keys()}
            waiting = deque(request for request in different if request not in verdicts)
            try:
                self._judge(waiting, verdicts, should_stop)
            except BaseException:
                # After Ctrl-C, say: replies to this call's answers must not meet the next call.
                self._stop()
                raise
            return [verdicts[request] for request in requests]

    def close(self) -> None:
        """Ends every process and waits for it. The pool may be used again and starts new ones."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _judge(
        self,
        waiting: deque[GradingRequest],
        verdicts: dict[GradingRequest, Verdict],
        should_stop: Callable[[], bool],
    ) -> None:
        busy: dict[Worker, GradingRequest] = {}
        while waiting or busy:
            while waiting and self._has_room(busy):
                worker = self._idle_worker(waiting[0][0])
                busy[worker] = waiting.popleft()
                worker.begin(busy[worker])
            ready = wait_for(busy, POLL_S)
            late = [worker for worker in busy if worker.overdue(self._wall_limit_s)]
            for worker in dict.fromkeys((*ready, *late)):
                reply = self._reply(worker, is_late=worker not in ready)
                if reply is not None:
                    request = busy.pop(worker)
                    verdicts[request] = self._verdict(request, reply)
            if should_stop():
                raise GradingStopped(f"{len(waiting) + len(busy)} answers are not judged yet")
        for worker in self._workers[self._num_workers :]:
            self._end(worker)

    def _has_room(self, busy: Iterable[Worker]) -> bool:
        now = time.monotonic()
        started = [worker.started for worker in busy]
        slow = sum(start is not None and now - start > PATIENCE_S for start in started)
        return len(started) - min(slow, MAX_ASIDE * self._num_workers) < self._num_workers

    def _idle_worker(self, verifier: str) -> Worker:
        server, is_forked_with_it = self._load(verifier)
        for worker in [worker for worker in self._workers if worker.request is None]:
            if worker.alive() and (verifier in worker.versions or not is_forked_with_it):
                return worker
            self._end(worker)
        self._workers.append(server.fork())
        return self._workers[-1]

    def _load(self, verifier: str) -> tuple[Server, bool]:
        """A living server, and whether it has loaded the verifier for workers to come."""
        if self._server is not None and not self._server.alive():
            self._server.stop()
            self._server = None
        if self._server is None:
            self._server = Server(self._cpu_limit_s, self._wall_limit_s)
        version = self._server.load(verifier, own_rewards=self._own_rewards)
        if version is not None:
            self._check_version(verifier, version)
        return self._server, version is not None

    def _reply(self, worker: Worker, *, is_late: bool) -> dict[str, Any] | None:
        """A worker's reply, or one in place of it where it ended or is late; None while partial."""
        assert worker.request is not None, "it is busy"
        verifier = worker.request[0]
        if not is_late:
            with suppress(OSError):
                reply = worker.receive()
                if reply is not None:
                    self._check_version(verifier, worker.versions[verifier])
                return reply
        is_loading = worker.started is None
        status = self._end(worker)
        if is_loading:
            reason = f"not ready after {START_LIMIT_S:g} s" if is_late else how_ended(status)
            raise UserError(f"{verifier} cannot be loaded to judge answers: {reason}")
        ran_out = used_up(status)
        if ran_out and len(self._hung) < MAX_REMEMBERED:
            self._hung[worker.request] = Verdict(reward=0.0, answer=None, status="timeout")
        status_said = "timeout" if ran_out or is_late else "error"
        return {"reward": 0.0, "answer": None, "status": status_said}

    def _verdict(self, request: GradingRequest, reply: dict[str, Any]) -> Verdict:
        verifier = request[0]
        reason = reply.pop("reason", None)
        if reason and verifier not in self._complained:
            self._complained.add(verifier)
            logger.warning(
                f"{verifier} failed on an answer, which counts as status error with reward 0: "
                f"{reason} (said once)"
            )
        return Verdict(**reply)

    def _check_version(self, verifier: str, version: str) -> None:
        if self._versions.setdefault(verifier, version) != version:
            raise UserError(f"{verifier}: its source changed while answers were judged")

    def _end(self, worker: Worker) -> int | None:
        self._workers.remove(worker)
        return worker.end()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers = []
        if self._server is not None:
            self._server.stop()
            self._server = None
