"""The connection of the ranks: what they exchange, and how an error of one becomes that of all."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

from astarpo.runtime.launch import rank_timeout, read_launch
from astarpo.runtime.peers import PeerFailed, PeerLate, PeerLost, Peers
from astarpo.runtime.stopping import StopRequested
from astarpo.types import EngineStopped, TrainingStopped, UserError

_START_S = 600.0
"""How long ranks wait for each other at the start: as long as the slowest takes to import torch."""

_LEAVING_S = 20.0
"""How long a rank that has failed waits for the others to hear of it, before it ends."""

_KINDS: dict[str, Callable[[str], BaseException]] = {
    kind.__name__: kind
    for kind in (UserError, TrainingStopped, EngineStopped, StopRequested, KeyboardInterrupt)
}
"""Errors that every rank raises alike; of others only the rank that has it does."""


class _Failure(NamedTuple):
    kind: str
    text: str

    @property
    def is_stop(self) -> bool:
        return self.kind == StopRequested.__name__


class Connection:
    """This rank's connection to the others.

    Attributes:
        rank: This one's number.
        size: How many there are.
    """

    def __init__(self, store: Any, *, owns_group: bool) -> None:
        """Connects over a group of torch.distributed that is there.

        Args:
            store: Its store, or another one that all ranks reach.
            owns_group: Whether to end the group too at the end.
        """
        import torch.distributed as dist  # which takes long, and one process does without

        self._dist = dist
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._owns_group = owns_group
        self._agreed: BaseException | None = None
        self._broken: Exception | None = (
            None  # Others are not where they should be: no exchange can succeed.
        )
        seconds = rank_timeout()
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))
        self._peers = Peers(store, self.rank, self.size, seconds)

    def exchange(
        self,
        what: str,
        value: Any = None,
        error: BaseException | None = None,
        patience_s: float | None = None,
    ) -> list[Any]:
        """Every rank's value, in the order of the ranks.

        Args:
            what: The exchange's name: all ranks are at the same one.
            value: This rank's.
            error: What keeps this rank from going on, instead.
            patience_s: How long to wait at most.

        Raises:
            BaseException: A rank gave an error: on that rank it is this one, on others one of the
                same kind, raised from a `PeerFailed`, or a `PeerFailed` itself.
            PeerLost: A rank is dead or hangs.
        """
        if self._broken:
            raise self._broken
        failure = _Failure(type(error).__name__, str(error)) if error is not None else None
        parts: list[Any] = [None] * self.size
        try:
            self._peers.meet(patience_s)
            self._dist.all_gather_object(parts, (what, value, failure), group=self._group)
        except PeerLate as late:
            self._broken = late
            raise
        except RuntimeError as found:
            if isinstance(found, PeerLost):
                self._broken = self._lost(str(found))
                raise self._broken from None
            self._broken = self._lost("another rank has ended while results were exchanged")
            raise self._broken from found
        if failures := {rank: part[2] for rank, part in enumerate(parts) if part[2]}:
            raise self._choose(failures, error)
        assert {part[0] for part in parts} == {what}, [part[0] for part in parts]
        return [part[1] for part in parts]

    def fail(self, error: BaseException) -> NoReturn:
        """Makes an error of this rank that of all, where it is not so yet; raises it."""
        if error is self._agreed or isinstance(error, PeerFailed):
            raise error
        if isinstance(error, StopRequested):
            self.exchange("failure", error=error)
        self._peers.announce_failure()
        # The others may be at work that cannot be given up, and that waits for this rank.
        with suppress(PeerLate):
            self.exchange("failure", error=error, patience_s=_LEAVING_S)
        raise error

    def agreed_error(self, error: BaseException) -> BaseException:
        """An error that every rank has found alike; the first one tells it."""
        return self._choose({0: _Failure(type(error).__name__, str(error))}, error)

    def settle(self, error: BaseException) -> None:
        """Tells the others of an error that ends this rank's work, where they do not know it."""
        if self._broken or error is self._agreed or isinstance(error, PeerFailed):
            return
        try:
            self._peers.announce_failure()
            self.exchange("failure", error=error, patience_s=_LEAVING_S)
        except (PeerLate, PeerLost):
            return
        except BaseException as found:
            if found is not error:
                error.__cause__ = PeerFailed(str(found))

    def close(self) -> None:
        """Waits for the others to be done as well, and disconnects."""
        if not self._broken:
            self.exchange("end")
        self._peers.close()
        if self._owns_group and not self._broken:
            self._dist.destroy_process_group()

    def _lost(self, text: str) -> PeerFailed:
        """The error of a rank that is gone, which one of those that are left tells."""
        with suppress(RuntimeError):  # The store may have gone with it.
            if not self._peers.is_first_to("tell"):
                return PeerFailed(text)
        return PeerLost(text)

    def _choose(self, failures: dict[int, _Failure], own: BaseException | None) -> BaseException:
        """The error to raise here: the first rank's that has one, if need be in other words."""
        real = {rank: failure for rank, failure in failures.items() if not failure.is_stop}
        rank, failure = min((real or failures).items())
        if rank == self.rank and own is not None:
            chosen = own
        elif failure.kind in _KINDS:
            chosen = _KINDS[failure.kind](failure.text)
            chosen.__cause__ = PeerFailed(f"rank {rank}: {failure.text}")
        else:
            chosen = PeerFailed(f"rank {rank}: {failure.kind}: {failure.text}")
        self._agreed = chosen
        return chosen


_stores: list[Any] = []
_count = 0


def connect() -> Connection:
    """Connects to the ranks of the group that is there, or makes one of those started together.

    Raises:
        UserError: They have not come together.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    global _count
    _count += 1
    if dist.is_initialized():
        held = dist.distributed_c10d._get_default_store()
        return Connection(_part(held, "astarpo"), owns_group=False)
    launch = read_launch()
    start = timedelta(seconds=min(_START_S, rank_timeout()))
    try:
        if not _stores:  # A second group of this process meets at the same place.
            _stores.append(next(rendezvous("env://", launch.rank, launch.size, timeout=start))[0])
        backend = "gloo"
        if torch.cuda.is_available() and dist.is_nccl_available():
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(
            backend,
            store=_part(_stores[0], "group"),
            rank=launch.rank,
            world_size=launch.size,
            timeout=timedelta(seconds=rank_timeout()),
        )
    except dist.DistError as error:
        raise UserError(
            f"the {launch.size} ranks have not come together within {start.seconds} s: is every "
            f"one started, and does it reach MASTER_ADDR? ({' '.join(str(error).split())[:200]})"
        ) from error
    return Connection(_part(_stores[0], "astarpo"), owns_group=True)


def _part(store: Any, name: str) -> Any:
    """A connection of its own to a store, with names that nothing else uses."""
    from torch.distributed import PrefixStore

    return PrefixStore(f"{name}/{_count}", store.clone())


def is_told_elsewhere(error: BaseException) -> bool:
    """Whether another rank tells the user of an error."""
    return isinstance(error.__cause__, PeerFailed) or type(error) is PeerFailed
