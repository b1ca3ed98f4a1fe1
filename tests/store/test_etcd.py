"""What only the store in etcd has: outages, several endpoints, and etcd3's messages."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from thunderserve.core.errors import ConfigError, UnavailableError
from thunderserve.runtime.store.etcd import EtcdStore
from thunderserve.runtime.store.etcd_messages import etcd_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcd_server import EtcdServer


def test_etcd_messages_round_trip_when_protobuf_is_current() -> None:
    """The classes come from etcd3's descriptors, nested kinds included."""
    rpc = etcd_messages().rpc
    compare = rpc.Compare(key=b"k", target=rpc.Compare.MOD, mod_revision=7)
    request = rpc.TxnRequest(compare=[compare])
    assert rpc.TxnRequest.FromString(request.SerializeToString()).compare[0].mod_revision == 7


def test_etcd_store_is_refused_when_there_is_no_endpoint() -> None:
    """The message names the key to set."""
    with pytest.raises(ConfigError, match="etcd_endpoints"):
        EtcdStore([])


async def test_etcd_store_is_unavailable_when_nobody_listens(free_port: Callable[[], int]) -> None:
    """The error names the endpoint, within the timeout."""
    endpoint = f"127.0.0.1:{free_port()}"
    store = EtcdStore([endpoint], timeout_s=0.3)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=endpoint):
        await store.get("a")
    with pytest.raises(UnavailableError, match=endpoint):
        await store.keep_alive(1)
    assert time.monotonic() - started < 5
    await store.close()


@pytest.mark.etcd
async def test_etcd_store_asks_the_next_endpoint_when_one_is_dead(
    etcd: EtcdServer, free_port: Callable[[], int]
) -> None:
    """Reads succeed at once; a write succeeds at the latest when it is tried again."""
    store = EtcdStore([f"127.0.0.1:{free_port()}", etcd.endpoint], timeout_s=1)
    assert await store.get("a") is None
    assert await store.put("a", b"1") > 0
    await store.close()


@pytest.mark.etcd
async def test_etcd_store_watch_resumes_when_the_server_restarts(own_etcd: EtcdServer) -> None:
    """Every change before, between and after is seen once, in order."""
    store = EtcdStore([own_etcd.endpoint], timeout_s=5)
    start = (await store.list("")).revision
    seen: list[bytes] = []
    async with asyncio.timeout(30), aclosing(store.watch("r/", start)) as batches:
        await store.put("r/a", b"1")
        seen += [c.entry.value for c in (await anext(batches)).changes if c.entry]
        own_etcd.stop()
        own_etcd.start()
        await store.put("r/a", b"2")
        await store.put("r/a", b"3")
        while len(seen) < 3:
            seen += [c.entry.value for c in (await anext(batches)).changes if c.entry]
    assert seen == [b"1", b"2", b"3"]
    await store.close()
