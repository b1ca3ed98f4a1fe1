"""What happens to rooms on either side: announced, watched, aborted, overdue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import NotFoundError, ThunderServeError, UnavailableError
from thunderserve.kvlink.protocol.message import MessageKind, pack_json

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from thunderserve.core.request import WireMode
    from thunderserve.kvlink.peers import Peers
    from thunderserve.kvlink.rooms import Room, Rooms
    from thunderserve.kvlink.session import Session

__all__ = ["Exchange"]

_log = logging.getLogger(__name__)
_CHECK_INTERVAL_S = 1.0
_REASON_WAIT_S = 1.0


class Exchange:
    """Rooms, the engine and the peers; `Sending` and `Receiving` move the bytes.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, rooms: Rooms, peers: Peers, clock: Callable[[], float]) -> None:
        self.rooms = rooms
        self.peers = peers
        self.clock = clock
        self._session: Session | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def session(self) -> Session:
        """The engine.

        Raises:
            UnavailableError: None is registered.
        """
        if self._session is None:
            raise UnavailableError("no engine is registered with this sidecar; is it starting?")
        return self._session

    def attach(self, session: Session) -> None:
        """Register an engine; one that was registered before is let go."""
        if self._session is not None:
            self.detach(self._session)
        self._session = session
        _log.info("engine in phase %s registered: %s", session.phase, session.layout)

    def detach(self, session: Session) -> None:
        """The engine is gone: its rooms are lost."""
        if self._session is not session:
            return
        self._session = None
        session.stream.close()
        for room in self.rooms.open_rooms():
            if room.role is not None:
                self.abort(room, "the engine disconnected from its sidecar")

    def announce(self, number: int, mode: WireMode) -> None:
        """Open a room and choose how it travels."""
        self.rooms.announce(number, mode, self.clock())

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

    def abort_by_engine(self, number: int, reason: str) -> None:
        """The engine ended a room; a reservation of it may be on its way."""
        try:
            self.abort(self.rooms.get(number), reason)
        except NotFoundError:
            self.rooms.bury(number, reason, self.clock())

    def _tell_engine(self, number: int, reason: str) -> None:
        # Also of rooms that were never reserved: the engine's request may wait for it.
        if self._session is not None:
            failed = pack_json({"reason": reason})
            self.spawn(self._session.tell(MessageKind.FAILED, number, failed))

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
        if self._session is not None:
            self.detach(self._session)
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
