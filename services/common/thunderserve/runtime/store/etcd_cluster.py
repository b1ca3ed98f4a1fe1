"""Calls to an etcd cluster: which member, as whom, and what its refusals mean."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from thunderserve.core.errors import ConfigError, NotFoundError, UnavailableError
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.store.etcd_messages import etcd_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EtcdAccess", "EtcdCluster", "EtcdMember", "EtcdTls"]

_SERVICES = ("KV", "Lease", "Watch", "Auth")
_OUTAGES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_CHANNEL_OPTIONS = {
    # Leases run on while etcd is away: back within a fraction of one, nobody is taken for lost.
    "max_reconnect_backoff_ms": 250,
    # A member that froze keeps its connections. etcd sends clients away that ping more often than
    # every 5 s, or without a call.
    "keepalive_time_ms": 6_000,
    "keepalive_timeout_ms": 3_000,
    "keepalive_permit_without_calls": 0,
}


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """PEM texts: whom to trust, and who we are where etcd asks clients for a certificate."""

    trusted: bytes
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """How to reach a cluster.

    Attributes:
        endpoints: `host:port` of one or more members.
        tls: None is plain text.
        user: Empty where etcd asks for none.
        timeout_s: Longest time for one call.
    """

    endpoints: tuple[str, ...]
    tls: EtcdTls | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 3.0

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ConfigError("etcd_endpoints is empty; name at least one host:port")


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """One member of the cluster and the stubs of its services."""

    address: str
    channel: grpc.aio.Channel
    kv: Any
    lease: Any
    watch: Any
    auth: Any

    @classmethod
    def open(cls, address: str, tls: EtcdTls | None) -> EtcdMember:
        """A member; it is connected to at the first call."""
        credentials = None
        if tls is not None:
            credentials = grpc.ssl_channel_credentials(tls.trusted, tls.key, tls.certificate)
        channel = open_channel(address, credentials, **_CHANNEL_OPTIONS)
        stubs = [getattr(etcd_messages().stubs, f"{name}Stub")(channel) for name in _SERVICES]
        return cls(address, channel, *stubs)


class EtcdCluster:
    """The members, of which the first is asked; a failed call moves on to the next one.

    Raises:
        ConfigError: etcd3 is not installed.
    """

    def __init__(self, access: EtcdAccess) -> None:
        self._access = access
        self._members = [EtcdMember.open(e, access.tls) for e in access.endpoints]
        self._token = ""
        self._signing_in = asyncio.Lock()
        self.sign_in_count = 0

    @property
    def member(self) -> EtcdMember:
        """The member that is asked now."""
        return self._members[0]

    @property
    def timeout_s(self) -> float:
        """Longest time for one call."""
        return self._access.timeout_s

    async def read(self, service: str, method: str, request: Any) -> Any:
        """A call that may be repeated: every member is asked once."""
        for _ in self._members[1:]:
            try:
                return await self.call(service, method, request)
            except UnavailableError:
                continue
        return await self.call(service, method, request)

    async def call(self, service: str, method: str, request: Any) -> Any:
        """Ask the first member; again only where it did nothing, for want of a valid token.

        Raises:
            NotFoundError: There is no such lease.
            UnavailableError: No answer, or a refusal.
        """
        member, metadata = self.member, await self.metadata()
        # With one member there is nowhere else to go: wait for it, within the timeout.
        options = {"timeout": self.timeout_s, "wait_for_ready": len(self._members) == 1}
        call = getattr(getattr(member, service), method)
        try:
            return await call(request, metadata=metadata, **options)
        except grpc.aio.AioRpcError as error:
            if not (metadata and _asks_to_sign_in(error)):
                raise self.failure(member, error) from error
        self.forget_token(metadata)
        try:
            return await call(request, metadata=await self.metadata(), **options)
        except grpc.aio.AioRpcError as error:
            raise self.failure(member, error) from error

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call must carry: the token of our user, if there is one.

        Raises:
            UnavailableError: Signing in failed.
        """
        if not self._access.user:
            return ()
        async with self._signing_in:
            self._token = self._token or await self._sign_in()
        return (("token", self._token),)

    def forget_token(self, metadata: Sequence[tuple[str, str]]) -> None:
        """Sign in anew before the next call, unless that was done since."""
        if ("token", self._token) in metadata:
            self._token = ""

    def failure(self, member: EtcdMember, error: Exception | None) -> Exception:
        """Our error for a failed call; `error` is None where a stream just ended."""
        details = (isinstance(error, grpc.aio.AioRpcError) and error.details()) or ""
        code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
        where = f"etcd at {member.address}"
        if code is grpc.StatusCode.NOT_FOUND:
            return NotFoundError(f"{where}: {details}")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "space" in details:
            return UnavailableError(
                f"{where} is full and takes no writes (NOSPACE); compact it, defragment it and "
                "disarm the alarm with etcdctl"
            )
        if code is not None and code not in _OUTAGES:
            return UnavailableError(f"{where} refuses: {details}")
        self.move_on(member)
        if details.startswith("etcdserver:"):  # it runs, but has no majority
            return UnavailableError(f"{where} cannot answer: {details}")
        return UnavailableError(f"{where} does not answer; is it running?")

    def move_on(self, member: EtcdMember) -> None:
        """Ask another member from now on, if this one is asked now."""
        if member is self._members[0]:
            self._members.append(self._members.pop(0))

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(member.channel.close(None) for member in self._members))

    async def _sign_in(self) -> str:
        self.sign_in_count += 1
        member, access = self.member, self._access
        kind = etcd_messages().rpc.AuthenticateRequest
        request = kind(name=access.user, password=access.password)
        try:
            response = await member.auth.Authenticate(request, timeout=access.timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self.failure(member, error) from error
        return str(response.token)


def _asks_to_sign_in(error: grpc.aio.AioRpcError) -> bool:
    """True when the token is unknown, too old, or from before users were changed."""
    stale = "auth store is old" in (error.details() or "")
    return stale or error.code() is grpc.StatusCode.UNAUTHENTICATED
