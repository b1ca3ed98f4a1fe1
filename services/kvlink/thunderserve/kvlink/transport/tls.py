"""TLS between hosts: one port that asks for a certificate, and who dials it.

The port serves several protocols; ALPN, which is agreed within the handshake, says which one a
connection is for. Nothing of a stranger's is read but the handshake.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

from thunderserve.core.errors import (
    PermissionDeniedError,
    ThunderServeError,
    UnauthenticatedError,
    UnavailableError,
)
from thunderserve.kvlink.transport.stream import ByteStream, split_address
from thunderserve.runtime.identity import identity_of_peer, refusal_reason, require_role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from thunderserve.core.identity import Role
    from thunderserve.runtime.identity import Credentials

    Handler = Callable[[ByteStream], Awaitable[None]]

__all__ = ["TlsPort", "dial"]

_log = logging.getLogger(__name__)
_BACKLOG = 256
# A dead peer behind a NAT says nothing: the kernel asks it after 30 s, and gives up a minute later.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
# What waits unsent in the kernel cannot be overtaken by a more urgent transfer.
_UNSENT_BYTES = 256 * 1024
_ACCEPT_PAUSE_S = 0.1


class TlsPort:
    """Accepts connections of certified peers and runs one task for each.

    Args:
        credentials: This process's.
        roles: Whose connections are taken, of the same fleet.
        handlers: By ALPN name, best first; a connection is closed when its handler returns.
        handshake_timeout_s: From accepting a connection to the end of its handshake.
        max_handshakes: At once; one more makes the oldest give way, which a flood of silent
            connections always is.
        max_connections: Beyond the handshake; more are refused.
    """

    def __init__(
        self,
        credentials: Credentials,
        roles: tuple[Role, ...],
        handlers: Mapping[str, Handler],
        *,
        handshake_timeout_s: float = 5.0,
        max_handshakes: int = 128,
        max_connections: int = 1024,
    ) -> None:
        self._credentials = credentials
        self._roles = roles
        self._handlers = dict(handlers)
        self._handshake_timeout_s = handshake_timeout_s
        self._max_handshakes = max_handshakes
        self._max_connections = max_connections
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: dict[asyncio.Task[None], None] = {}  # the oldest comes first
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, address: str) -> None:
        """Raises UnavailableError when `host:port` cannot be bound."""
        try:
            self._listening = _bound(*split_address(address))
        except (OSError, ValueError, OverflowError) as error:
            raise UnavailableError(f"cannot listen on {address}: {error}") from error
        self._accepting = asyncio.get_running_loop().create_task(self._accept(self._listening))

    async def close(self) -> None:
        """Stop accepting, end every connection, wait for their tasks."""
        tasks = [*self._handshakes, *self._connections]
        if self._accepting is not None:
            tasks.append(self._accepting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                raw, peer = await loop.sock_accept(listening)
            except OSError as error:  # out of file descriptors: others will be given back
                _log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            if len(self._handshakes) >= self._max_handshakes:
                next(iter(self._handshakes)).cancel("too many handshakes at once")
            task = loop.create_task(self._run(raw, f"{peer[0]}:{peer[1]}"))
            self._handshakes[task] = None
            task.add_done_callback(partial(self._forget, raw))

    def _forget(self, raw: socket.socket, task: asyncio.Task[None]) -> None:
        """Also of a task that was cancelled before it began, which closed nothing."""
        self._handshakes.pop(task, None)
        self._connections.discard(task)
        raw.close()

    async def _run(self, raw: socket.socket, peer: str) -> None:
        stream = ByteStream()
        try:
            await self._shake_hands(raw, stream)
            handler = self._admit(stream)
        except (OSError, ThunderServeError) as error:
            stream.close()
            level = logging.DEBUG if _said_nothing(error) else logging.WARNING
            _log.log(level, "refused a connection from %s: %s", peer, refusal_reason(error))
            return
        except asyncio.CancelledError as error:
            _log.warning("refused a connection from %s: %s", peer, *error.args or ("stopping",))
            raise
        await self._serve(handler, stream, peer)

    async def _shake_hands(self, raw: socket.socket, stream: ByteStream) -> None:
        tune(raw)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: stream,
            raw,
            ssl=self._credentials.server_context(*self._handlers),
            ssl_handshake_timeout=self._handshake_timeout_s,
        )

    def _admit(self, stream: ByteStream) -> Handler:
        """The handler of a connection whose handshake is done.

        Raises:
            UnauthenticatedError: The certificate says nothing that we understand.
            PermissionDeniedError: The role may not, or nothing is left for it.
        """
        connection = stream.info("ssl_object")
        if connection is None:
            raise UnauthenticatedError("it has gone again")
        identity = identity_of_peer(connection)
        require_role(identity, self._credentials.identity.fleet, *self._roles)
        protocol = connection.selected_alpn_protocol()
        if protocol not in self._handlers:
            spoken = ", ".join(self._handlers)
            raise PermissionDeniedError(
                f"{identity} offers no protocol of ours ({spoken}); run the same release there"
            )
        if len(self._connections) >= self._max_connections:
            raise PermissionDeniedError(f"{len(self._connections)} connections are open already")
        return self._handlers[protocol]

    async def _serve(self, handler: Handler, stream: ByteStream, peer: str) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._handshakes.pop(task, None)
            self._connections.add(task)
        try:
            await handler(stream)
        except ThunderServeError as error:
            _log.info("connection from %s ended: %s", peer, error)
        except Exception:  # noqa: BLE001 - one connection's bug must not end the others
            _log.exception("connection handler failed")
        finally:
            stream.close()


async def dial(
    address: str, credentials: Credentials, role: Role, protocol: str, timeout_s: float
) -> ByteStream:
    """Connect to a peer's port and make sure of its role.

    Raises:
        UnavailableError: Nobody listens there, not in time, not with a certificate that we accept,
            or without that protocol.
    """
    try:
        async with asyncio.timeout(timeout_s):
            transport, stream = await asyncio.get_running_loop().create_connection(
                ByteStream,
                *split_address(address),
                ssl=credentials.client_context(protocol),
                server_hostname=credentials.server_name(role),
            )
    except (OSError, ValueError, OverflowError, TimeoutError) as error:
        reason = refusal_reason(error) if str(error) else "timeout"
        raise UnavailableError(f"cannot connect to {address}: {reason}") from error
    tune(transport.get_extra_info("socket"))
    if transport.get_extra_info("ssl_object").selected_alpn_protocol() != protocol:
        stream.close()
        raise UnavailableError(f"{address} does not speak {protocol}; run the same release there")
    return stream


def tune(raw: socket.socket) -> None:
    """What every connection between hosts wants of the kernel."""
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        raw.setsockopt(socket.IPPROTO_TCP, option, value)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listening.setblocking(False)  # noqa: FBT003 - the method's only argument
    return listening


def _said_nothing(error: Exception) -> bool:
    """True for whoever connects and leaves: a health check, a scan."""
    return isinstance(error, ConnectionResetError | ssl.SSLEOFError)
