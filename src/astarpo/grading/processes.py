"""The pool's side of the processes that judge: their server, and one handle a worker.

The server is a plain subprocess, not a fork of this process, so neither CUDA nor threads of the
caller matter; the caller's `__main__` is not imported. What the user's own call in Python was given
(see `runtime/given.py`), and that alone, is pickled for the workers.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from astarpo.runtime.given import given
from astarpo.types import UserError

START_LIMIT_S = 600.0
"""Imports may be slow on a network disk or a busy machine; beyond this something is broken."""

GradingRequest = tuple[str, str, str]
"""The verifier's name, the response, and the ground truth (for a reward function what
`RewardFunction.request` gives)."""

# The parent decides what Ctrl-C and SIGTERM mean, which terminals and schedulers send to every
# process: an answer or an import under way must not end by them. SIGTERM gets a handler that does
# nothing instead of being ignored, because a program that is executed would go on ignoring it.
# `-P` keeps the working directory off the path, and the check keeps a second copy of the package
# off it: the server imports what this process would, plus the folder that this package came from.
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_BOOTSTRAP = """\
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: None)
root, cpu_limit_s, wall_limit_s = sys.argv[1:]
if root not in sys.path:
    sys.path.insert(0, root)
from astarpo.grading.worker import main
main(float(cpu_limit_s), float(wall_limit_s))
"""


class Server:
    """The process that workers are forked from. It is ready once this object is made."""

    def __init__(self, cpu_limit_s: float, wall_limit_s: float) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._control, theirs = socket.socketpair()
        self._loaded: dict[str, str | None] = {}
        limits = str(cpu_limit_s), str(wall_limit_s)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOTSTRAP, _PACKAGE_ROOT, *limits],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,  # the terminal's signals are for this process alone
            )
        try:
            self._reply()
        except BaseException as error:
            if isinstance(error, TimeoutError) or not isinstance(error, OSError):
                self._process.kill()
            reason = self._why(error)
            self.stop()
            if not isinstance(error, OSError):
                raise
            raise UserError(
                f"the verifier's worker process does not start ({reason}); check that astarpo and "
                f"math-verify are installed for {sys.executable}"
            ) from None

    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def load(self, verifier: str, *, own_rewards: bool) -> str | None:
        """Imports a verifier, once, for all workers forked from now on.

        Returns:
            Its version; None for a user's function, which workers load themselves.
        """
        if verifier not in self._loaded:
            is_given = given(verifier) is not None
            asked = {"load": verifier, "own_rewards": own_rewards, "is_given": is_given}
            reply = self._ask(asked)
            self._loaded[verifier] = version_of(verifier, reply)
        return self._loaded[verifier]

    def fork(self) -> "Worker":
        """Makes a worker that knows all verifiers loaded so far."""
        ours, theirs = socket.socketpair()
        with theirs:
            reply = self._ask({}, theirs)
        if "failed" in reply:
            ours.close()
            raise UserError(f"the verifier's worker process does not start ({reply['failed']})")
        loaded = {name: version for name, version in self._loaded.items() if version is not None}
        return Worker(self, ours, reply["pid"], loaded)

    def end(self, pid: int) -> int | None:
        """Kills a worker if it lives; returns how it ended, None where that is not known."""
        with suppress(OSError):
            self._control.sendall(line_of({"end": pid}))
            return self._reply()["ended"]
        return None

    def stop(self) -> None:
        """Ends the server and its workers, and waits until they are gone."""
        self._control.close()
        try:
            self._process.wait(1)  # it ends its workers first
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _ask(self, message: dict[str, Any], *connections: socket.socket) -> dict[str, Any]:
        try:
            descriptors = [connection.fileno() for connection in connections]
            socket.send_fds(self._control, [line_of(message)], descriptors)
            return self._reply()
        except OSError as error:
            return {"failed": self._why(error)}

    def _reply(self) -> Any:
        self._control.settimeout(START_LIMIT_S)
        reply = b""
        while not reply.endswith(b"\n"):
            part = self._control.recv(65536)
            if not part:
                raise ConnectionError("ended")
            reply += part
        return json.loads(reply)

    def _why(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"not ready after {START_LIMIT_S:g} s"
        code = self._process.wait()
        self._errors.seek(0, os.SEEK_SET)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"


class Worker:
    """One worker process, which judges one answer at a time.

    Attributes:
        connection: Where it is asked and replies.
        pid: Its process.
        versions: Those of the verifiers that it has loaded.
        request: What it judges; None while it is idle.
        started: When that was sent, in seconds of the monotonic clock; None while it still loads
            the verifier.
    """

    def __init__(
        self, server: Server, connection: socket.socket, pid: int, loaded: dict[str, str]
    ) -> None:
        self._server = server
        self.connection = connection
        self.connection.settimeout(START_LIMIT_S)
        self.pid = pid
        self.versions = loaded
        self.request: GradingRequest | None = None
        self.started: float | None = None
        self._load_started = 0.0
        self._buffer = b""

    def begin(self, request: GradingRequest) -> None:
        """Sends a request, or before it one to load its verifier."""
        self.request, self.started = request, None
        verifier, response, ground_truth = request
        message: dict[str, Any]
        if verifier in self.versions:
            self.started = time.monotonic()
            message = {"verifier": verifier, "response": response, "ground_truth": ground_truth}
        else:
            self._load_started = time.monotonic()
            message = {"load": verifier, "path": sys.path, "limit_s": START_LIMIT_S}
            message |= {"own_rewards": True, "is_given": False}
            if found := given(verifier):
                pickled = base64.b64encode(found.pickled).decode("ascii")
                message |= {"is_given": True, "version": found.version, "pickled": pickled}
        with suppress(OSError):  # it died: the connection's end says so as well
            self.connection.sendall(line_of(message))

    def receive(self) -> dict[str, Any] | None:
        """Reads what has come.

        Returns:
            A verdict's fields; None where the reply is not whole yet, or the verifier is loaded and
            the request is sent only now.

        Raises:
            OSError: The process has ended.
        """
        part = self.connection.recv(65536)
        if not part:
            raise ConnectionError("ended")
        self._buffer += part
        if not self._buffer.endswith(b"\n"):
            return None
        reply, self._buffer = json.loads(self._buffer), b""
        assert self.request is not None, "idle workers send nothing"
        if self.started is not None:
            self.request = None
            return reply
        verifier = self.request[0]
        self.versions[verifier] = version_of(verifier, reply)
        self.begin(self.request)
        return None

    def overdue(self, wall_limit_s: float) -> bool:
        """Whether it has taken longer than its verifier may, by the clock."""
        if self.started is None:
            return time.monotonic() > self._load_started + START_LIMIT_S
        return time.monotonic() > self.started + wall_limit_s

    def alive(self) -> bool:
        """Whether an idle process is still there: it says nothing, unless by its end."""
        return not wait([self.connection], 0)

    def close(self) -> None:
        """Leaves the process, which ends when it next listens. For one that is stuck see `end`."""
        self.connection.close()

    def end(self) -> int | None:
        """Kills the process if it lives; returns how it ended, None where that is not known."""
        self.connection.close()
        return self._server.end(self.pid)


def wait_for(workers: Iterable[Worker], limit_s: float) -> list[Worker]:
    """The workers that have said something, or ended, as soon as one has."""
    by_connection = {worker.connection: worker for worker in workers}
    ready = wait(by_connection, limit_s)
    return [worker for connection, worker in by_connection.items() if connection in ready]


def used_up(status: int | None) -> bool:
    """Whether a process was stopped at its limit of CPU time."""
    return status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF


def how_ended(status: int | None) -> str:
    """How a process ended, in a few words for a message."""
    return "ended" if status is None else f"exit code {os.waitstatus_to_exitcode(status)}"


def version_of(verifier: str, reply: dict[str, Any]) -> Any:
    """The version in a reply to a request to load; raises UserError where loading failed."""
    if "failed" in reply:
        raise UserError(f"{verifier} cannot be loaded to judge answers: {reply['failed']}")
    return reply["version"]


def line_of(message: dict[str, Any]) -> bytes:
    """A message as server and workers read it: one line of JSON."""
    return json.dumps(message).encode("ascii") + b"\n"
