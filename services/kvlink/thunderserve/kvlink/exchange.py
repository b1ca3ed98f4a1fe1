"""What happens to rooms on either side: announced, watched, aborted, overdue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import NotFoundError, ThunderServeError, UnavailableError
from thunderserve.kvlink.protocol.message import MessageKind, pack_json
from thunderserve.kvlink.session import Engine, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from thunderserve.core.request import WireMode
    from thunderserve.kvlink.measuring import WireModes
    from thunderserve.kvlink.peers import Peers
    from thunderserve.kvlink.rooms import Room, Rooms

__all__ = ["Exchange"]

_log = logging.getLogger(__name__)
_CHECK_INTERVAL_S = 1.0
_REASON_WAIT_S = 1.0


class Exchange:
    """Rooms, the engine and the peers; `Sending` and `Receiving` move the bytes.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(
        self, rooms: Rooms, peers: Peers, modes: WireModes, clock: Callable[[], float]
    ) -> None:
        self.rooms = rooms
        self.modes = modes
        self.peers = peers
        self.clock = clock
        self._engine: Engine | None = None
        self._engines: dict[str, Engine] = {}  # also those that lack a rank
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def engine(self) -> Engine:
        """The engine, all ranks of it.

        Raises:
            UnavailableError: None is registered.
        """
        if self._engine is None:
            waiting = ", ".join(
                f"{len(e.sessions)} of {e.rank_count} ranks" for e in self._engines.values()
            )
            raise UnavailableError(
                f"no engine is registered with this sidecar ({waiting or 'none is connected'}); "
                "is it starting?"
            )
        return self._engine

    def attach(self, session: Session) -> None:
        """Register a rank; with the last one its engine replaces the one that was there before.

        Raises:
            PreconditionError: It does not fit the other ranks of its engine.
        """
        engine = self._engines.get(session.engine) or Engine(session)
        if (before := engine.get(session.part.rank)) is not None:
            self.detach(before)
        engine.join(session)
        self._engines[engine.name] = engine
        if engine.complete:
            self._let_go(keep=engine)
            self._engine = engine
            layout, ranks = engine.layout, engine.rank_count
            _log.info("engine in phase %s registered, %d ranks: %s", engine.phase, ranks, layout)

    def detach(self, session: Session) -> None:
        """A rank is gone: its engine's rooms are lost, the other ranks wait for its return."""
        session.close()
        engine = self._engines.get(session.engine)
        if engine is None or engine.get(session.part.rank) is not session:
            return
        engine.leave(session)
        if not engine.sessions:
            del self._engines[engine.name]
        if engine is self._engine:
            self._lose_rooms()
            self._engine = None

    def _let_go(self, *, keep: Engine | None = None) -> None:
        """Close the connections of all engines but one."""
        others = [engine for engine in self._engines.values() if engine is not keep]
        self._engines = {} if keep is None else {keep.name: keep}
        if self._engine is not None:
            self._engine = None
            self._lose_rooms()
        for engine in others:
            for session in engine.sessions:
                session.close()

    def _lose_rooms(self) -> None:
        for room in self.rooms.open_rooms():
            if room.role is not None:
                self.abort(room, "the engine disconnected from its sidecar")

    def announce(self, number: int, mode: WireMode) -> None:
        """Open a room and choose how it travels."""
        self.rooms.announce(number, mode, self.clock())

    def has_open_room(self, peer_address: str) -> bool:
        """Whether a transfer from or to a peer has begun or waits."""
        return any(room.peer_address == peer_address for room in self.rooms.open_rooms())

    async def wait_ended(self, number: int) -> Room:
        """The room, once it is committed or aborted; raises NotFoundError for an unknown one."""
        room = self.rooms.get(number)
        await room.ended.wait()
        return room

    def abort(self, room: Room, reason: str, *, tell_peer: bool = True) -> None:
        """End a room badly, here and on the other side; an ended one is left as it is."""
        if not self.rooms.abort(room, reason, self.clock()):
            return
        _log.warning("room %d aborted: %s", room.number, reason)
        if room.stream is not None:
            room.stream.close()
        self._tell_engine(room.number, reason)
        if tell_peer and room.peer_address:
            self.spawn(self.peers.abort(room.peer_address, room.number, reason))

    async def lose(self, room: Room, reason: str) -> None:
        """The bulk connection of a room broke; the peer's own words, by gRPC, say more."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(room.ended.wait(), _REASON_WAIT_S)
        self.abort(room, reason)

    def abort_by_peer(self, number: int, reason: str) -> None:
        """The other side ended a room; this side may not have heard of it yet."""
        try:
            self.abort(self.rooms.get(number), reason, tell_peer=False)
        except NotFoundError:
            self.rooms.bury(number, reason, self.clock())
            self._tell_engine(number, reason)

    def abort_by_engine(self, number: int, reason: str, peer_address: str = "") -> None:
        """The engine ended a room; a reservation of it may be on its way.

        Args:
            number: The room.
            reason: Told to the other side too.
            peer_address: Of the other side when the engine knows it; it waits for a room that
                will not be reserved any more.
        """
        room = self.rooms.find(number)
        if room is None:
            self.rooms.bury(number, reason, self.clock())
        else:
            self.abort(room, reason)
        if peer_address and (room is None or not room.peer_address):
            self.spawn(self.peers.abort(peer_address, number, reason))

    def _tell_engine(self, number: int, reason: str) -> None:
        # Also of rooms that were never reserved: the engine's request may wait for it.
        if self._engine is not None:
            failed = pack_json({"reason": reason})
            self.spawn(self._engine.tell(MessageKind.FAILED, number, failed))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the caller; its failure is logged and ends nothing else."""
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def watch_overdue(self) -> None:
        """Abort rooms that take too long; runs until it is cancelled."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL_S)
            for room in self.rooms.overdue(self.clock()):
                self.abort(room, "the transfer did not end in time")

    async def close(self) -> None:
        """Let the engine go and wait for what still runs."""
        self._let_go()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except ThunderServeError as error:
        _log.info("%s", error)
    except Exception:  # noqa: BLE001 - nobody awaits this task
        _log.exception("background work failed")
