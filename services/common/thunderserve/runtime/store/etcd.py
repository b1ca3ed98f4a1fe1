"""The store in etcd: etcd3's messages and stubs, and loops of our own over grpc.aio.

etcd3's own watch never resumes after an outage and spins meanwhile, its lock fails with current
dependencies, and it knows one endpoint: none of the three is used.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from thunderserve.core.errors import ConfigError, NotFoundError, UnavailableError
from thunderserve.runtime.backoff import Backoff
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.store.base import (
    Batch,
    Change,
    Compare,
    CreatedAt,
    Entry,
    Listing,
    Put,
    Write,
)
from thunderserve.runtime.store.etcd_messages import EtcdMessages, etcd_messages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

__all__ = ["EtcdStore"]

# A member cut off from the majority ends the watch instead of staying silent.
_NEEDS_LEADER = (("hasleader", "true"),)
_OUTAGES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One member of the cluster and the stubs of its three services."""

    address: str
    channel: grpc.aio.Channel
    kv: Any
    lease: Any
    watch: Any

    @classmethod
    def open(cls, address: str, stubs: Any) -> _Endpoint:
        channel = open_channel(address, max_reconnect_backoff_ms=_LONGEST_BACKOFF_MS)
        kv, lease, watch = (getattr(stubs, f"{name}Stub")(channel) for name in _SERVICES)
        return cls(address, channel, kv, lease, watch)


# Leases run on while etcd is away: back within a fraction of one, members are not taken for lost.
_LONGEST_BACKOFF_MS = 250
_SERVICES = ("KV", "Lease", "Watch")


class EtcdStore:
    """A store on an etcd cluster; a failed call moves on to the next endpoint.

    Args:
        endpoints: `host:port` of one or more members.
        timeout_s: Longest time for one call.

    Raises:
        ConfigError: No endpoint is given, or etcd3 is not installed.
    """

    def __init__(self, endpoints: Sequence[str], *, timeout_s: float = 3.0) -> None:
        if not endpoints:
            raise ConfigError("etcd_endpoints is empty; name at least one host:port")
        self._messages: EtcdMessages = etcd_messages()
        self._endpoints = [_Endpoint.open(e, self._messages.stubs) for e in endpoints]
        self._timeout_s = timeout_s
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        request = self._messages.rpc.RangeRequest(key=key.encode())
        response = await self._read("kv", "Range", request)
        return next(map(_entry, response.kvs), None)

    async def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        request = self._messages.rpc.RangeRequest(**_range(prefix))
        response = await self._read("kv", "Range", request)
        return Listing(tuple(map(_entry, response.kvs)), response.header.revision)

    async def put(self, key: str, value: bytes, lease_id: int = 0) -> int:
        """See `Store.put`."""
        request = self._messages.rpc.PutRequest(key=key.encode(), value=value, lease=lease_id)
        response = await self._call("kv", "Put", request)
        return int(response.header.revision)

    async def commit(self, compares: Sequence[Compare], writes: Sequence[Write]) -> int | None:
        """See `Store.commit`."""
        request = self._messages.rpc.TxnRequest(
            compare=[self._compare(compare) for compare in compares],
            success=[self._write(write) for write in writes],
        )
        response = await self._call("kv", "Txn", request)
        return int(response.header.revision) if response.succeeded else None

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """See `Store.watch`."""
        seen, backoff = after_revision, Backoff(first_s=0.05, longest_s=1.0)
        while not self._closed:
            endpoint = self._endpoints[0]
            call = endpoint.watch.Watch(metadata=_NEEDS_LEADER)
            try:
                await call.write(self._watch_request(prefix, seen))
                while response := await call.read():  # the end of a stream is falsy
                    if response.compact_revision:
                        return
                    if response.canceled:
                        break
                    backoff.reset()
                    if batch := _batch(response):
                        seen = batch.revision
                        yield batch
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # an outage: go on at another endpoint
            except asyncio.CancelledError:
                if not self._closed:
                    raise
                return
            finally:
                call.cancel()
            self._move_on(endpoint)
            await asyncio.sleep(backoff.next_s())

    async def grant_lease(self, ttl_s: float) -> int:
        """See `Store.grant_lease`; etcd counts whole seconds."""
        request = self._messages.rpc.LeaseGrantRequest(TTL=max(1, math.ceil(ttl_s)))
        return int((await self._read("lease", "LeaseGrant", request)).ID)

    async def keep_alive(self, lease_id: int) -> None:
        """See `Store.keep_alive`."""
        endpoint = self._endpoints[0]
        call = endpoint.lease.LeaseKeepAlive(timeout=self._timeout_s)
        try:
            await call.write(self._messages.rpc.LeaseKeepAliveRequest(ID=lease_id))
            response = await call.read()
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise self._failure(endpoint, error) from error
        finally:
            call.cancel()
        if not response:
            raise self._failure(endpoint, None)
        if response.TTL <= 0:
            raise NotFoundError(f"lease {lease_id} has ended; grant a new one")

    async def revoke_lease(self, lease_id: int) -> None:
        """See `Store.revoke_lease`."""
        request = self._messages.rpc.LeaseRevokeRequest(ID=lease_id)
        try:
            await self._call("lease", "LeaseRevoke", request)
        except NotFoundError:
            return

    async def compact(self, revision: int) -> None:
        """See `Store.compact`."""
        await self._call("kv", "Compact", self._messages.rpc.CompactionRequest(revision=revision))

    async def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        await asyncio.gather(*(endpoint.channel.close(None) for endpoint in self._endpoints))

    async def _read(self, service: str, method: str, request: Any) -> Any:
        """A call that may be repeated: every endpoint is asked once."""
        for _ in self._endpoints[1:]:
            try:
                return await self._call(service, method, request)
            except UnavailableError:
                continue
        return await self._call(service, method, request)

    async def _call(self, service: str, method: str, request: Any) -> Any:
        endpoint = self._endpoints[0]
        # With one endpoint there is nowhere else to go: wait for it, within the timeout.
        wait = len(self._endpoints) == 1
        call = getattr(getattr(endpoint, service), method)
        try:
            return await call(request, timeout=self._timeout_s, wait_for_ready=wait)
        except grpc.aio.AioRpcError as error:
            raise self._failure(endpoint, error) from error

    def _failure(self, endpoint: _Endpoint, error: Exception | None) -> Exception:
        if isinstance(error, grpc.aio.AioRpcError):
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return NotFoundError(f"etcd at {endpoint.address}: {error.details()}")
            if error.code() not in _OUTAGES:
                return UnavailableError(f"etcd at {endpoint.address} refuses: {error.details()}")
        self._move_on(endpoint)
        return UnavailableError(f"etcd at {endpoint.address} does not answer; is it running?")

    def _move_on(self, endpoint: _Endpoint) -> None:
        if endpoint is self._endpoints[0]:
            self._endpoints.append(self._endpoints.pop(0))

    def _compare(self, compare: Compare) -> Any:
        kind = self._messages.rpc.Compare
        if isinstance(compare, CreatedAt):
            expected = {"target": kind.CREATE, "create_revision": compare.revision}
        else:
            expected = {"target": kind.MOD, "mod_revision": compare.revision}
        return kind(key=compare.key.encode(), result=kind.EQUAL, **expected)

    def _write(self, write: Write) -> Any:
        rpc, key = self._messages.rpc, write.key.encode()
        if isinstance(write, Put):
            put = rpc.PutRequest(key=key, value=write.value, lease=write.lease_id)
            return rpc.RequestOp(request_put=put)
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))

    def _watch_request(self, prefix: str, seen: int) -> Any:
        create = self._messages.rpc.WatchCreateRequest(**_range(prefix), start_revision=seen + 1)
        return self._messages.rpc.WatchRequest(create_request=create)


def _range(prefix: str) -> dict[str, bytes]:
    """The keys that start with `prefix`: from it to the next string of its length."""
    if not prefix:
        return {"key": b"\0", "range_end": b"\0"}
    start = prefix.encode()
    return {"key": start, "range_end": start[:-1] + bytes([start[-1] + 1])}


def _entry(kv: Any) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def _batch(response: Any) -> Batch | None:
    """The response's changes; None for an announcement without any.

    A response may be sent while later changes are still to come, so its header's revision says
    nothing of what has been seen; the last event's does.
    """
    if not response.events:
        return None
    changes = tuple(
        Change(event.kv.key.decode(), None if event.type else _entry(event.kv))
        for event in response.events
    )
    return Batch(changes, response.events[-1].kv.mod_revision)
