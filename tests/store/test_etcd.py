"""What only the store in etcd has: outages, several members, users, TLS, and etcd3's messages."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from etcd_server import EtcdServer
from etcd_server import free_port as fresh_port
from made_certificates import make_certificates

from thunderserve.core.errors import ConfigError, UnavailableError
from thunderserve.runtime.store.base import CreatedAt, Put
from thunderserve.runtime.store.etcd import EtcdStore
from thunderserve.runtime.store.etcd_cluster import EtcdAccess, EtcdTls
from thunderserve.runtime.store.etcd_messages import etcd_messages
from thunderserve.runtime.store.mirror import mirror

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
    from pathlib import Path

    from thunderserve.runtime.store.base import Batch

WORD = "pw"


@asynccontextmanager
async def opened(*endpoints: str, timeout_s: float = 5.0) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(EtcdAccess(endpoints, timeout_s=timeout_s))
    yield store
    await store.close()


async def values_of(batches: AsyncGenerator[Batch, None], count: int) -> list[bytes]:
    """The values that were put, until there are so many."""
    seen: list[bytes] = []
    while len(seen) < count:
        seen += [c.entry.value for c in (await anext(batches)).changes if c.entry]
    return seen


def test_etcd_messages_round_trip_when_protobuf_is_current() -> None:
    """The classes come from etcd3's descriptors, nested kinds included."""
    rpc = etcd_messages().rpc
    compare = rpc.Compare(key=b"k", target=rpc.Compare.MOD, mod_revision=7)
    request = rpc.TxnRequest(compare=[compare])
    assert rpc.TxnRequest.FromString(request.SerializeToString()).compare[0].mod_revision == 7


def test_etcd_store_is_refused_when_there_is_no_endpoint() -> None:
    """The message names the key to set."""
    with pytest.raises(ConfigError, match="etcd_endpoints"):
        EtcdAccess(())


def test_etcd_access_shows_no_secret_when_it_is_printed() -> None:
    """A log line may hold one."""
    word = "secret"
    tls = EtcdTls(b"ca", b"cert", word.encode())
    access = EtcdAccess(("a:1",), tls=tls, user="me", password=word)
    assert "secret" not in repr(access)


async def test_etcd_store_is_unavailable_when_nobody_listens(free_port: Callable[[], int]) -> None:
    """The error names the endpoint, within the timeout."""
    endpoint = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    async with opened(endpoint, timeout_s=0.3) as store:
        with pytest.raises(UnavailableError, match=endpoint):
            await store.get("a")
        with pytest.raises(UnavailableError, match=endpoint):
            await store.keep_alive(1)
    assert time.monotonic() - started < 5


@pytest.mark.etcd
async def test_etcd_store_asks_the_next_endpoint_when_one_is_dead(
    etcd: EtcdServer, free_port: Callable[[], int]
) -> None:
    """Reads succeed at once; a write succeeds at the latest when it is tried again."""
    async with opened(f"127.0.0.1:{free_port()}", etcd.endpoint, timeout_s=1) as store:
        assert await store.get("a") is None
        assert await store.put("a", b"1") > 0


@pytest.mark.etcd
async def test_etcd_store_watch_resumes_when_the_server_restarts(own_etcd: EtcdServer) -> None:
    """Every change before, between and after is seen once, in order."""
    async with opened(own_etcd.endpoint) as store:
        start = (await store.list("")).revision
        async with asyncio.timeout(30), aclosing(store.watch("r/", start)) as batches:
            await store.put("r/a", b"1")
            seen = await values_of(batches, 1)
            own_etcd.stop()
            own_etcd.start()
            await store.put("r/a", b"2")
            await store.put("r/a", b"3")
            seen += await values_of(batches, 2)
    assert seen == [b"1", b"2", b"3"]


@pytest.mark.etcd
async def test_etcd_mirror_lists_anew_when_its_watch_was_compacted_away(
    own_etcd: EtcdServer,
) -> None:
    """What an outage and a compaction hid is in the next mapping, and the watch goes on from it."""
    async with (
        opened(own_etcd.endpoint) as store,
        asyncio.timeout(30),
        aclosing(mirror(store, "m/")) as mappings,
    ):
        assert await anext(mappings) == {}
        await store.put("m/a", b"0")
        assert set(await anext(mappings)) == {"m/a"}
        own_etcd.stop()
        own_etcd.start()
        # Nobody reads the watch now, so it resumes only when its past is gone.
        await store.commit([], [Put("m/a", b"1"), Put("m/b", b"1")])
        await store.compact(await store.put("m/a", b"2"))
        entries = await anext(mappings)
        assert {k: e.value for k, e in entries.items()} == {"m/a": b"2", "m/b": b"1"}
        await store.put("m/c", b"3")
        assert set(await anext(mappings)) == {"m/a", "m/b", "m/c"}


@pytest.mark.etcd
@pytest.mark.parametrize("others", [0, 20], ids=["behind", "caught up"])
async def test_etcd_mirror_lists_anew_when_the_store_was_set_back(
    own_etcd: EtcdServer, others: int
) -> None:
    """Etcd itself would stay silent: until the old revision is reached again, or for ever."""
    async with opened(own_etcd.endpoint) as store, asyncio.timeout(30):
        await store.put("m/old", b"")
        own_etcd.stop()
        shutil.copytree(own_etcd.data, own_etcd.folder / "snapshot")
        own_etcd.start()
        for _ in range(5):
            await store.put("m/new", b"")
        async with aclosing(mirror(store, "m/")) as mappings:
            assert set(await anext(mappings)) == {"m/old", "m/new"}
            await store.put("m/newer", b"")  # so that the watch has begun
            assert "m/newer" in await anext(mappings)
            own_etcd.stop()
            shutil.rmtree(own_etcd.data)
            shutil.copytree(own_etcd.folder / "snapshot", own_etcd.data)
            await _write_elsewhere(own_etcd, others)
            own_etcd.start()
            assert set(await anext(mappings)) == {"m/old"}


async def _write_elsewhere(server: EtcdServer, puts: int) -> None:
    """Bring a stopped server's revision on, where those who know its address do not see it."""
    known, server.endpoint = server.endpoint, f"127.0.0.1:{fresh_port()}"
    server.start()
    async with opened(server.endpoint) as store:
        for _ in range(puts):
            await store.put("elsewhere", b"")
    server.stop()
    server.endpoint = known


@pytest.mark.etcd
async def test_etcd_store_says_full_when_the_quota_is_used_up(tmp_path: Path) -> None:
    """Reads go on, the message names the way out, and that way leads out."""
    server = EtcdServer(tmp_path, "--quota-backend-bytes", "200000")
    server.start()
    async with opened(server.endpoint) as store:
        await store.put("a", b"1")
        with pytest.raises(UnavailableError, match=r"full .* \(NOSPACE\).* disarm"):
            await _fill(store)
        listing = await store.list("a")
        assert listing.entries[0].value == b"1"
        await store.compact(listing.revision)
        server.ctl("defrag")
        server.ctl("alarm", "disarm")
        assert await store.put("a", b"2") > listing.revision
    server.stop()


async def _fill(store: EtcdStore) -> None:
    while True:
        await store.put("filler", b"x" * 50_000)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd that asks for user and password, and forgets who signed in after a second."""
    server = EtcdServer(tmp_path, "--auth-token-ttl", "1")
    server.start()
    server.ctl("user", "add", f"root:{WORD}")
    server.ctl("auth", "enable")
    yield server
    server.stop()


@pytest.mark.etcd
async def test_etcd_store_signs_in_anew_when_its_token_has_expired(guarded: EtcdServer) -> None:
    """Calls, leases and watches go on; a write that was refused is done once."""
    store = EtcdStore(EtcdAccess((guarded.endpoint,), user="root", password=WORD))
    async with asyncio.timeout(30), aclosing(store.watch("a", 0)) as batches:
        start = await store.put("a", b"1")
        lease = await store.grant_lease(60)
        assert await values_of(batches, 1) == [b"1"]
        guarded.stop()  # tokens are kept in memory alone
        guarded.start()
        assert await store.commit([CreatedAt("a", start)], [Put("a", b"2")]) == start + 1
        await store.keep_alive(lease)
        assert await values_of(batches, 1) == [b"2"]
        await _expire(store)
        assert await store.put("a", b"3") == start + 2
        assert await values_of(batches, 1) == [b"3"]
    assert 2 <= store.sign_in_count <= 6
    await store.close()


async def _expire(store: EtcdStore) -> None:
    """Wait until etcd has forgotten the token: calls with it are answered by signing in anew."""
    before = store.sign_in_count
    for idle_s in range(2, 10):
        await asyncio.sleep(idle_s)
        await store.get("a")
        if store.sign_in_count > before:
            return


@pytest.mark.etcd
@pytest.mark.parametrize(
    ("user", "password", "says"),
    [("root", "wrong", "authentication failed"), ("", "", "user name is empty")],
)
async def test_etcd_store_is_unavailable_when_the_user_is_not_known(
    guarded: EtcdServer, user: str, password: str, says: str
) -> None:
    """The message is etcd's, without the password."""
    store = EtcdStore(EtcdAccess((guarded.endpoint,), user=user, password=password))
    with pytest.raises(UnavailableError, match=says):
        await store.put("a", b"")
    await store.close()


@pytest.mark.etcd
async def test_etcd_store_speaks_tls_when_etcd_asks_for_certificates(tmp_path: Path) -> None:
    """Ours opens the door; without one, or with plain text, nobody comes in."""
    made = make_certificates(tmp_path)
    server = EtcdServer(tmp_path / "etcd", certificates=made)
    server.start()
    ours = EtcdTls(
        made.authority.read_bytes(), made.client_cert.read_bytes(), made.client_key.read_bytes()
    )
    access = EtcdAccess((server.endpoint,), tls=ours, timeout_s=2)
    store = EtcdStore(access)
    revision = await store.put("a", b"1")
    async with asyncio.timeout(10), aclosing(store.watch("a", revision - 1)) as batches:
        assert await values_of(batches, 1) == [b"1"]
    await store.close()
    for tls in (EtcdTls(made.authority.read_bytes()), None):
        stranger = EtcdStore(replace(access, tls=tls, timeout_s=0.5))
        with pytest.raises(UnavailableError, match="does not answer"):
            await stranger.get("a")
        await stranger.close()
    server.stop()


async def test_etcd_loops_try_ever_more_rarely_when_nobody_listens(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by attempts: after a few of them, there is about one in a second."""
    waits_s: list[float] = []
    sleep = asyncio.sleep

    async def recorded(delay_s: float) -> None:
        waits_s.append(delay_s)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", recorded)
    async with opened(f"127.0.0.1:{free_port()}", timeout_s=0.01) as store:
        for loop in (anext(store.watch("a", 0)), anext(mirror(store, "a"))):
            waits_s.clear()
            task = asyncio.ensure_future(loop)
            while len(waits_s) < 20:
                await sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            assert min(waits_s[6:]) >= 0.5
