"""Who may speak to a sidecar: every other one is refused, with one line that says why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from identities import FLEET, SERVER_NAME, authority, bulk_context, issue
from kvlink_sides import free_port

from thunderserve.api.kvlink.v1 import kvlink_pb2, kvlink_pb2_grpc
from thunderserve.core.errors import UnavailableError
from thunderserve.core.identity import Identity, Role
from thunderserve.core.plan import Phase
from thunderserve.kvlink.links import BULK_PROTOCOL
from thunderserve.kvlink.protocol import PROTOCOL_VERSION
from thunderserve.kvlink.transport import ByteStream, TlsPort, dial
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.identity import Credentials
from thunderserve.runtime.identity.pki import Authority, Validity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

NOW = datetime.now(UTC)
TODAY = Validity.of_days(1, NOW)
PAST = Validity(NOW - timedelta(days=2), NOW - timedelta(days=1))
FUTURE = Validity(NOW + timedelta(days=1), NOW + timedelta(days=2))
WAIT_S = 10.0


class Port:
    """A port whose one protocol answers every byte with itself."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def greet(self, context: ssl.SSLContext) -> bytes:
        """What comes back for `hello`; empty when the port hangs up."""
        host, _, port = self.address.rpartition(":")
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=context, server_hostname=SERVER_NAME
            )
            try:
                writer.write(b"hello")
                return await reader.readexactly(5)
            finally:
                writer.transport.abort()
        return b""


async def echo(stream: ByteStream) -> None:
    while True:
        await stream.write(await stream.read_some())


@pytest.fixture
async def open_port(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    async with contextlib.AsyncExitStack() as stack:

        async def opened(identity: Path | None = None, **limits: Any) -> Port:
            address = f"127.0.0.1:{free_port()}"
            credentials = Credentials(identity or issue(tmp_path / "port"))
            port = TlsPort(credentials, (Role.KVLINK,), {BULK_PROTOCOL: echo}, **limits)
            stack.push_async_callback(port.close)
            await port.listen(address)
            return Port(address)

        yield opened


def context_of(folder: Path, *protocols: str) -> ssl.SSLContext:
    return Credentials(folder).client_context(*(protocols or (BULK_PROTOCOL,)))


def without_certificate(_: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([BULK_PROTOCOL])
    return context


def of_another_authority(folder: Path) -> ssl.SSLContext:
    Authority.create(FLEET, TODAY).issue(Identity(FLEET, Role.KVLINK, "g0"), TODAY, folder)
    return blindly(context_of(folder))


def of_another_fleet(folder: Path) -> ssl.SSLContext:
    other = authority()
    same_key = Authority("other", other._certificate, other._key)
    same_key.issue(Identity("other", Role.KVLINK, "g0"), TODAY, folder)
    return blindly(context_of(folder))


def blindly(context: ssl.SSLContext) -> ssl.SSLContext:
    """A dialer that believes everybody."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def of_old_tls(folder: Path) -> ssl.SSLContext:
    context = context_of(issue(folder))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


STRANGERS = {
    "no certificate": (without_certificate, "peer did not return a certificate"),
    "another authority": (of_another_authority, "not accepted"),
    "another fleet": (of_another_fleet, "it is spiffe://other/kvlink/g0; only spiffe://test"),
    "expired": (lambda f: context_of(issue(f, validity=PAST)), "certificate has expired"),
    "not yet valid": (lambda f: context_of(issue(f, validity=FUTURE)), "not yet valid"),
    "another role": (lambda f: context_of(issue(f, Role.WORKER)), "it is spiffe://test/worker/g0"),
    "another version": (
        lambda f: context_of(issue(f), f"thunderserve-kvlink/{PROTOCOL_VERSION + 1}"),
        "offers no protocol of ours",
    ),
    "old TLS": (of_old_tls, "unsupported protocol"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_port_refuses_and_says_why_when_the_peer_is_a_stranger(
    open_port: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    stranger: str,
) -> None:
    """One line with the reason and the address; others are served as before."""
    make, reason = STRANGERS[stranger]
    port = await open_port()

    assert await port.greet(make(tmp_path / "stranger")) == b""

    (line,) = await logged(caplog, "refused a connection")
    assert reason in line
    assert "from 127.0.0.1:" in line
    assert await port.greet(bulk_context()) == b"hello"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 5000, b"\x16\x03\x01\xff\xff"])
async def test_port_refuses_when_the_peer_speaks_no_tls(
    open_port: Callable[..., Any], caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """Nothing is answered that a stranger could read."""
    port = await open_port(handshake_timeout_s=0.5)
    host, _, number = port.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(number))
    writer.write(data)

    with contextlib.suppress(ConnectionError):
        assert len(await reader.read()) <= 7  # an alert

    writer.close()
    assert len(await logged(caplog, "refused a connection")) == 1
    assert await port.greet(bulk_context()) == b"hello"


async def test_silent_connections_end_when_their_time_is_over(
    open_port: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A handshake that never begins is given up."""
    port = await open_port(handshake_timeout_s=0.2)
    host, _, number = port.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(number))

    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""

    writer.close()
    assert len(await logged(caplog, "refused a connection")) == 1


async def test_peer_is_served_when_silent_connections_flood_the_port(
    open_port: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest handshake gives way: silence keeps nobody out, and costs a bounded number."""
    port = await open_port(handshake_timeout_s=60.0, max_handshakes=8)
    host, _, number = port.address.rpartition(":")
    silent = [await asyncio.open_connection(host, int(number)) for _ in range(20)]

    assert await port.greet(bulk_context()) == b"hello"

    lines = await logged(caplog, "too many handshakes", 13)
    assert len(lines) == 13
    for _, writer in silent:
        writer.transport.abort()


async def test_port_refuses_when_as_many_are_connected_as_may_be(
    open_port: Callable[..., Any], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Certified peers are bounded too."""
    port = await open_port(max_connections=1)
    credentials = Credentials(issue(tmp_path / "peer"))
    first = await dial(port.address, credentials, Role.KVLINK, BULK_PROTOCOL, WAIT_S)
    await first.write(b"hello")
    assert await first.read_some() == b"hello"

    assert await port.greet(bulk_context()) == b""

    assert "1 connections are open" in (await logged(caplog, "refused a connection"))[0]
    first.close()


@pytest.mark.parametrize(
    ("role", "validity"), [(Role.WORKER, TODAY), (Role.KVLINK, PAST), (Role.KVLINK, FUTURE)]
)
async def test_dial_refuses_when_the_port_is_not_a_sidecar_s(
    open_port: Callable[..., Any], tmp_path: Path, role: Role, validity: Validity
) -> None:
    """No byte of a cache goes to whoever happens to have the address."""
    port = await open_port(issue(tmp_path / "impostor", role, validity=validity))
    credentials = Credentials(issue(tmp_path / "peer"))

    with pytest.raises(UnavailableError, match="certificate is not accepted"):
        await dial(port.address, credentials, Role.KVLINK, BULK_PROTOCOL, WAIT_S)


async def test_dial_refuses_when_the_port_does_not_speak_the_protocol(
    open_port: Callable[..., Any], tmp_path: Path
) -> None:
    """Another release is named as what it is."""
    port = await open_port()
    credentials = Credentials(issue(tmp_path / "peer"))

    with pytest.raises(UnavailableError, match="does not speak other/1; run the same release"):
        await dial(port.address, credentials, Role.KVLINK, "other/1", WAIT_S)


async def test_port_uses_a_renewed_certificate_without_a_restart(
    open_port: Callable[..., Any], tmp_path: Path
) -> None:
    """An expired one is replaced while connections live on."""
    folder = issue(tmp_path / "port", validity=PAST)
    port = await open_port(folder)
    assert await port.greet(bulk_context()) == b""

    for path in issue(tmp_path / "next").iterdir():
        path.replace(folder / path.name)

    assert await port.greet(bulk_context()) == b"hello"


@pytest.mark.parametrize("role", [Role.KVLINK, Role.WORKER])
async def test_peer_service_answers_sidecars_alone(
    make_side: Callable[..., Any], tmp_path: Path, role: Role
) -> None:
    """GRPC passes the same port and the same checks."""
    side = await make_side(Phase.PREFILL)
    credentials = Credentials(issue(tmp_path / "peer", role))
    channel = open_channel(
        side.config.address,
        credentials.channel_credentials(),
        ssl_target_name_override=SERVER_NAME,
    )
    async with channel:
        call = kvlink_pb2_grpc.PeerServiceStub(channel).GetEndpoint(
            kvlink_pb2.GetEndpointRequest(protocol_version=PROTOCOL_VERSION), timeout=WAIT_S
        )
        if role is Role.KVLINK:
            assert (await call).protocol_version == PROTOCOL_VERSION
        else:
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await call


async def logged(caplog: pytest.LogCaptureFixture, words: str, count: int = 1) -> list[str]:
    """The warnings that hold some words, once there are as many."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = [
                record.getMessage()
                for record in caplog.records
                if record.levelno == logging.WARNING and words in record.getMessage()
            ]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)
