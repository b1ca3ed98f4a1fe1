"""The store in etcd: etcd3's messages and stubs, and loops of our own over grpc.aio.

etcd3's own watch never resumes after an outage and spins meanwhile, its lock fails with current
dependencies, and it knows one endpoint: none of the three is used.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any

import grpc

from thunderserve.core.errors import NotFoundError, UnavailableError
from thunderserve.runtime.backoff import Backoff
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
from thunderserve.runtime.store.etcd_cluster import EtcdCluster
from thunderserve.runtime.store.etcd_messages import etcd_messages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from thunderserve.runtime.store.etcd_cluster import EtcdAccess

__all__ = ["EtcdStore"]

_log = logging.getLogger(__name__)

# A member cut off from the majority ends the watch instead of staying silent.
_NEEDS_LEADER = (("hasleader", "true"),)


class EtcdStore:
    """A store on an etcd cluster.

    Raises:
        ConfigError: etcd3 is not installed.
    """

    def __init__(self, access: EtcdAccess) -> None:
        self._rpc = etcd_messages().rpc
        self._cluster = EtcdCluster(access)
        self._closed = False

    @property
    def sign_in_count(self) -> int:
        """How often a user was signed in."""
        return self._cluster.sign_in_count

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        request = self._rpc.RangeRequest(key=key.encode())
        response = await self._cluster.read("kv", "Range", request)
        return next(map(_entry, response.kvs), None)

    async def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        request = self._rpc.RangeRequest(**_range(prefix))
        response = await self._cluster.read("kv", "Range", request)
        return Listing(tuple(map(_entry, response.kvs)), response.header.revision)

    async def put(self, key: str, value: bytes, lease_id: int = 0) -> int:
        """See `Store.put`."""
        request = self._rpc.PutRequest(key=key.encode(), value=value, lease=lease_id)
        response = await self._cluster.call("kv", "Put", request)
        return int(response.header.revision)

    async def commit(self, compares: Sequence[Compare], writes: Sequence[Write]) -> int | None:
        """See `Store.commit`."""
        request = self._rpc.TxnRequest(
            compare=[self._compare(compare) for compare in compares],
            success=[self._write(write) for write in writes],
        )
        response = await self._cluster.call("kv", "Txn", request)
        return int(response.header.revision) if response.succeeded else None

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """See `Store.watch`."""
        seen, backoff = after_revision, Backoff(first_s=0.05, longest_s=1.0)
        broke_off = False
        while not self._closed:
            member = self._cluster.member
            metadata: tuple[tuple[str, str], ...] = ()
            call = None
            try:
                metadata = await self._cluster.metadata()
                call = member.watch.Watch(metadata=(*metadata, *_NEEDS_LEADER))
                await call.write(self._watch_request(prefix, seen))
                while response := await call.read():  # the end of a stream is falsy
                    if response.compact_revision or _was_set_back(response, seen):
                        return
                    if response.canceled:
                        _log.debug("etcd ended a watch: %s", response.cancel_reason)
                        self._cluster.forget_token(metadata)  # it may have ended for that
                        break
                    backoff.reset()
                    for batch in _batches(response, seen, broke_off=broke_off):
                        seen = batch.revision
                        yield batch
                    broke_off = False
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, UnavailableError):
                pass  # an outage: go on at another member
            except asyncio.CancelledError:
                if not self._closed:
                    raise
                return
            finally:
                if call is not None:
                    call.cancel()
            broke_off = True
            self._cluster.move_on(member)
            await asyncio.sleep(backoff.next_s())

    async def grant_lease(self, ttl_s: float) -> int:
        """See `Store.grant_lease`; etcd counts whole seconds."""
        request = self._rpc.LeaseGrantRequest(TTL=max(1, math.ceil(ttl_s)))
        return int((await self._cluster.read("lease", "LeaseGrant", request)).ID)

    async def keep_alive(self, lease_id: int) -> None:
        """See `Store.keep_alive`."""
        cluster = self._cluster
        member, metadata = cluster.member, await cluster.metadata()
        call = member.lease.LeaseKeepAlive(timeout=cluster.timeout_s, metadata=metadata)
        try:
            await call.write(self._rpc.LeaseKeepAliveRequest(ID=lease_id))
            response = await call.read()
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            cluster.forget_token(metadata)
            raise cluster.failure(member, error) from error
        finally:
            call.cancel()
        if not response:
            raise cluster.failure(member, None)
        if response.TTL <= 0:
            raise NotFoundError(f"lease {lease_id} has ended; grant a new one")

    async def revoke_lease(self, lease_id: int) -> None:
        """See `Store.revoke_lease`."""
        request = self._rpc.LeaseRevokeRequest(ID=lease_id)
        try:
            await self._cluster.call("lease", "LeaseRevoke", request)
        except NotFoundError:
            return

    async def compact(self, revision: int) -> None:
        """See `Store.compact`."""
        await self._cluster.call("kv", "Compact", self._rpc.CompactionRequest(revision=revision))

    async def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        await self._cluster.close()

    def _compare(self, compare: Compare) -> Any:
        kind = self._rpc.Compare
        if isinstance(compare, CreatedAt):
            expected = {"target": kind.CREATE, "create_revision": compare.revision}
        else:
            expected = {"target": kind.MOD, "mod_revision": compare.revision}
        return kind(key=compare.key.encode(), result=kind.EQUAL, **expected)

    def _write(self, write: Write) -> Any:
        rpc, key = self._rpc, write.key.encode()
        if isinstance(write, Put):
            put = rpc.PutRequest(key=key, value=write.value, lease=write.lease_id)
            return rpc.RequestOp(request_put=put)
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))

    def _watch_request(self, prefix: str, seen: int) -> Any:
        create = self._rpc.WatchCreateRequest(**_range(prefix), start_revision=seen + 1)
        return self._rpc.WatchRequest(create_request=create)


def _range(prefix: str) -> dict[str, bytes]:
    """The keys that start with `prefix`: from it to the next string of its length."""
    if not prefix:
        return {"key": b"\0", "range_end": b"\0"}
    start = prefix.encode()
    return {"key": start, "range_end": start[:-1] + bytes([start[-1] + 1])}


def _entry(kv: Any) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def _was_set_back(response: Any, seen: int) -> bool:
    """True when a watch begins on a store that is older than what was seen: restored, or lagging.

    etcd would wait for the revision to come, and say nothing of what happens meanwhile.
    """
    return bool(response.created) and response.header.revision < seen


def _batches(response: Any, seen: int, *, broke_off: bool) -> Iterator[Batch]:
    """The response's changes, if it has any; before them, that an outage is over.

    A response may be sent while later changes are still to come, so its header's revision says
    nothing of what has been seen; the last event's does.
    """
    if broke_off:
        yield Batch((), seen)
    if not response.events:
        return
    changes = tuple(
        Change(event.kv.key.decode(), None if event.type else _entry(event.kv))
        for event in response.events
    )
    yield Batch(changes, response.events[-1].kv.mod_revision)
