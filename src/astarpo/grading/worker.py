"""The processes that judge: a server that imports the verifiers once, and workers forked from it.

Started by `grading.processes`. Server and workers talk one JSON object a line over sockets and may
be killed at any time: they hold nothing that matters. A fork takes milliseconds where imports take
seconds, so a worker that is stuck is replaced at once. The server sees no model's text.

What a model wrote must never become running code. So code made from text is refused while a
shipped verifier, or a library's, judges, and an answer for which it was tried has status `error`
even where the verifier swallowed the refusal. It is allowed while verifiers are imported, which
sees no model's text, and inside a user's own reward function: that is the user's code, which may
well use what compiles text for itself (`dataclasses`, `namedtuple`), and it alone answers for what
it does with a response.
"""

import base64
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import CodeType
from typing import Any, NamedTuple

from astarpo.grading.reward import REWARD_PREFIX, search_also
from astarpo.grading.verifiers import Verifier, get_verifier
from astarpo.runtime.given import accept, given
from astarpo.tasks import get_task
from astarpo.tasks.gym import ReasoningGym
from astarpo.types import UserError
from astarpo.verify import latex

MEMORY_LIMIT_BYTES = 4 * 2**30

CODE_GENERATORS = {"sympy.polys.monomials"}
"""Modules that may run code made from text: theirs depends on the number of variables alone."""

REASON_CHARS = 200
"""At most so many characters of what a verifier raised are passed on."""

SHIPPED_CPU_LIMIT_S = 1.0
"""No verifier that ships needs more for one answer: `benchmarks/pool.py --math` measures."""

ORPHAN_GRACE_S = 10.0
"""Seconds after the pool's limit at which a worker ends itself, should the pool be killed."""


class _Limits(NamedTuple):
    """What one answer may take of CPU time, and of time by the clock, in seconds."""

    cpu_s: float
    wall_s: float


def main(cpu_limit_s: float, wall_limit_s: float) -> None:
    """Serves requests for workers that come over standard input, a socket, until it is closed.

    Args:
        cpu_limit_s: CPU time of a worker for one answer.
        wall_limit_s: The pool's limit for one answer by the clock.
    """
    limits = _Limits(cpu_limit_s, wall_limit_s)
    control = _take_standard_streams()
    _limit_memory()
    logging.disable(logging.CRITICAL)

    latex.warm_up()
    sys.addaudithook(_refuse_code_from_text)
    gc.freeze()  # collecting what the imports made would copy its pages in every worker
    _send(control, {"ready": True})
    verifiers: dict[str, Verifier] = {}
    children: set[int] = set()
    while asked := _receive(control):
        request, connection = asked
        try:
            if connection is not None:
                with connection:
                    reply = {"pid": _fork(control, connection, verifiers, limits)}
                children.add(reply["pid"])
            elif "end" in request:
                children.remove(request["end"])
                reply = {"ended": _end(request["end"])}
            elif _loads_own(request):
                reply = {"version": None}  # it is for workers: this process lives on
            else:
                reply = _load(verifiers, request)
        except BaseException as error:  # whatever a library raises when it is imported
            reply = {"failed": str(error) or repr(error)}
        _send(control, reply)
    for pid in children:
        _end(pid)


def _fork(
    control: socket.socket,
    connection: socket.socket,
    verifiers: dict[str, Any],
    limits: _Limits,
) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            control.close()
            _serve(connection, verifiers, limits)
        finally:
            os._exit(1)
    with suppress(OSError):  # set on both sides, so that it is set before anybody ends the group
        os.setpgid(pid, pid)
    return pid


def _end(pid: int) -> int:
    """Kills a worker and what its verifier started; returns how it ended (as `wait` says it)."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _serve(connection: socket.socket, verifiers: dict[str, Any], limits: _Limits) -> None:
    """Judges one answer after another until the connection is closed."""
    for line in connection.makefile("rb"):
        request = json.loads(line)
        loads = "load" in request
        is_own = loads or _is_own(request["verifier"])
        cpu_s = limits.cpu_s if is_own else min(limits.cpu_s, SHIPPED_CPU_LIMIT_S)
        # Nobody handles these signals, so they end the process even inside a C call.
        signal.setitimer(signal.ITIMER_PROF, 0 if loads else cpu_s)
        signal.setitimer(signal.ITIMER_REAL, request.get("limit_s", limits.wall_s) + ORPHAN_GRACE_S)
        try:
            reply = _load(verifiers, request) if loads else _judge(verifiers, request)
        except MemoryError:
            os._exit(1)  # what is left of the heap is not worth trusting
        except BaseException as error:  # math-verify raises beside Exception; so may a user's code
            reply = {"failed": str(error)} if loads else _failed(repr(error))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(connection, reply)


def _is_own(name: str) -> bool:
    """Whether a verifier is the user's own code, named or given by the user's own call."""
    return name.startswith(REWARD_PREFIX) or given(name) is not None


def _loads_own(request: dict[str, Any]) -> bool:
    is_own = request.get("is_given") or request["load"].startswith(REWARD_PREFIX)
    return request["own_rewards"] and is_own


def _load(verifiers: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    name = request["load"]
    is_own = _loads_own(request)
    if is_own:
        # The caller may find a user's module where this process would not look.
        search_also(request["path"])
    with _code_from_text_allowed():
        if "pickled" in request:
            accept(name, request["version"], base64.b64decode(request["pickled"]))
        verifier = get_verifier(name) if is_own else get_task(name)
    if isinstance(verifier, ReasoningGym):
        _check(verifier)
    verifiers[name] = verifier
    return {"version": verifier.version}


def _check(verifier: ReasoningGym) -> None:
    """Refuses a scorer of reasoning-gym that fails where code made from text is refused."""
    global _refused
    _refused = False
    with _code_from_text_allowed():
        examples = verifier.examples()
    try:
        verifier.check(examples)
    except UserError as error:
        cause = ", since it runs answers as code, which is refused here" if _refused else ""
        raise UserError(f"{error}{cause}; take another data set") from error


def _judge(verifiers: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    global _refused
    _refused = False
    verifier = verifiers[request["verifier"]]
    with _code_from_text_allowed() if _is_own(request["verifier"]) else nullcontext():
        verdict = verifier.grade(request["response"], request["ground_truth"])
    if _refused:
        return _failed(REFUSAL)
    return {"reward": verdict.reward, "answer": verdict.answer, "status": verdict.status}


def _failed(reason: str) -> dict[str, Any]:
    return {"reward": 0.0, "answer": None, "status": "error", "reason": reason[:REASON_CHARS]}


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    # ASCII JSON: lone surrogates, which UTF-8 cannot carry, travel as escapes.
    connection.sendall(json.dumps(message).encode("ascii") + b"\n")


def _receive(control: socket.socket) -> tuple[dict[str, Any], socket.socket | None] | None:
    """The next request and the connection sent with it, if one is; None when there is no more."""
    line, connection = b"", None
    while not line.endswith(b"\n"):
        part, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not part:
            return None
        line += part
        connection = socket.socket(fileno=descriptors[0]) if descriptors else connection
    return json.loads(line), connection


def _take_standard_streams() -> socket.socket:
    """Keeps what libraries read or print apart from the socket that came as standard input."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return control


def _limit_memory() -> None:
    """Limits what a process can write to, libraries not counted: PyTorch's for GPUs are larger."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(hard, MEMORY_LIMIT_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


REFUSAL = "a verifier worker does not run code made from text"

_allowed = False
_refused = False


@contextmanager
def _code_from_text_allowed() -> Iterator[None]:
    global _allowed
    _allowed = True
    try:
        yield
    finally:
        _allowed = False


def _refuse_code_from_text(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: modules may still be imported, but text never becomes running code.

    `eval`, `exec` and sympy's `lambdify` compile under a name in angle brackets; code that comes
    from a file is compiled under its path, and Python's own under `<frozen ...>`.
    """
    global _refused
    if _allowed or event != "exec" or not isinstance(args[0], CodeType):
        return
    source = args[0].co_filename
    if not source.startswith("<") or source.startswith("<frozen "):
        return
    if sys._getframe(1).f_globals.get("__name__") not in CODE_GENERATORS:
        _refused = True
        raise PermissionError(REFUSAL)
