"""One behaviour, two stores: every test runs in memory and on a real etcd."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from thunderserve.core.errors import NotFoundError
from thunderserve.runtime.store.base import Change, CreatedAt, Delete, ModifiedAt, Put
from thunderserve.runtime.store.mirror import mirror

if TYPE_CHECKING:
    from thunderserve.runtime.store.base import Store

GONE_LEASE = 123_456


async def test_store_remembers_revisions_when_a_key_is_put_twice(store: Store) -> None:
    """The first put creates, the second only modifies."""
    first = await store.put("a", b"1")
    second = await store.put("a", b"2")
    entry = await store.get("a")
    assert entry is not None
    assert (entry.value, entry.create_revision, entry.mod_revision) == (b"2", first, second)
    assert second == first + 1


async def test_store_get_is_none_when_there_is_no_key(store: Store) -> None:
    """A missing key is no error."""
    assert await store.get("nothing") is None


async def test_store_lists_a_prefix_in_order_when_other_keys_exist(store: Store) -> None:
    """Neighbours of the prefix stay out, and the listing says at which revision it holds."""
    for key in ("p/b", "p/a", "p0", "o"):
        revision = await store.put(key, b"")
    listing = await store.list("p/")
    assert [entry.key for entry in listing.entries] == ["p/a", "p/b"]
    assert listing.revision == revision


async def test_store_commits_all_writes_when_comparisons_hold(store: Store) -> None:
    """A put and a delete of one transaction share a revision."""
    old = await store.put("old", b"")
    revision = await store.commit(
        [ModifiedAt("old", old), CreatedAt("new", 0)], [Delete("old"), Put("new", b"x")]
    )
    new = await store.get("new")
    assert new is not None
    assert (new.create_revision, await store.get("old")) == (revision, None)


@pytest.mark.parametrize("stale", [ModifiedAt("k", 1), CreatedAt("k", 0), CreatedAt("no", 5)])
async def test_store_commits_nothing_when_a_comparison_fails(
    store: Store, stale: ModifiedAt | CreatedAt
) -> None:
    """A stale fence leaves every key as it was."""
    await store.put("k", b"before")
    assert await store.commit([stale], [Put("k", b"after"), Put("other", b"")]) is None
    entry = await store.get("k")
    assert entry is not None
    assert (entry.value, await store.get("other")) == (b"before", None)


async def test_store_watch_yields_changes_in_order_when_started_in_the_past(store: Store) -> None:
    """Nothing after the given revision is missed, and nothing up to it is repeated."""
    start = await store.put("w/a", b"0")
    await store.put("w/a", b"1")
    await store.put("elsewhere", b"")
    await store.commit([], [Delete("w/a"), Put("w/b", b"2")])
    changes: list[Change] = []
    async with asyncio.timeout(5), aclosing(store.watch("w/", start)) as batches:
        async for batch in batches:
            changes += batch.changes
            if len(changes) == 3:
                break
    values = [(c.key, None if c.entry is None else c.entry.value) for c in changes]
    assert values == [("w/a", b"1"), ("w/a", None), ("w/b", b"2")]


async def test_store_watch_wakes_when_a_change_comes_later(store: Store) -> None:
    """A watcher that waits is told."""
    start = (await store.list("")).revision
    async with asyncio.timeout(5), aclosing(store.watch("w/", start)) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        revision = await store.put("w/x", b"")
        assert (await waiting).revision == revision


async def test_store_watch_ends_when_its_past_was_compacted(store: Store) -> None:
    """What cannot be told is not skipped silently."""
    start = await store.put("w/a", b"0")
    for _ in range(3):
        last = await store.put("w/a", b"1")
    await store.compact(last)
    async with asyncio.timeout(5):
        assert [batch async for batch in store.watch("w/", start)] == []


async def test_mirror_follows_a_prefix_when_keys_come_and_go(store: Store) -> None:
    """The first mapping is the present; every later one has one more change."""
    await store.put("m/a", b"1")
    async with asyncio.timeout(5), aclosing(mirror(store, "m/")) as mappings:
        assert set(await anext(mappings)) == {"m/a"}
        await store.put("m/b", b"2")
        assert set(await anext(mappings)) == {"m/a", "m/b"}
        await store.commit([], [Delete("m/a")])
        assert set(await anext(mappings)) == {"m/b"}


async def test_store_ends_entries_when_their_lease_is_revoked(store: Store) -> None:
    """A lease takes its own entries along, not those that moved to another lease."""
    lease, other = await store.grant_lease(60), await store.grant_lease(60)
    await store.put("l/mine", b"", lease)
    await store.put("l/moved", b"", lease)
    await store.put("l/moved", b"", other)
    await store.put("l/free", b"", lease)
    await store.put("l/free", b"")
    await store.revoke_lease(lease)
    await store.revoke_lease(lease)
    listing = await store.list("l/")
    assert [(e.key, e.lease_id) for e in listing.entries] == [("l/free", 0), ("l/moved", other)]


async def test_store_ends_a_lease_when_it_is_not_kept_alive(store: Store) -> None:
    """Watchers see the entries go, and the lease is unknown afterwards."""
    lease = await store.grant_lease(1)
    revision = await store.put("l/a", b"", lease)
    async with asyncio.timeout(10), aclosing(store.watch("l/", revision)) as batches:
        batch = await anext(batches)
    assert batch.changes == (Change("l/a", None),)
    with pytest.raises(NotFoundError):
        await store.keep_alive(lease)


async def test_store_keeps_a_lease_when_it_is_kept_alive(store: Store) -> None:
    """A lease that is kept outlives one that is not."""
    kept, idle = await store.grant_lease(1), await store.grant_lease(1)
    await store.put("l/kept", b"", kept)
    revision = await store.put("l/idle", b"", idle)

    async def keep() -> None:
        while True:
            await store.keep_alive(kept)
            await asyncio.sleep(0.1)

    async with asyncio.timeout(10), aclosing(store.watch("l/", revision)) as batches:
        keeping = asyncio.create_task(keep())
        assert (await anext(batches)).changes == (Change("l/idle", None),)
        keeping.cancel()
    assert await store.get("l/kept") is not None


async def test_store_refuses_a_write_when_its_lease_has_ended(store: Store) -> None:
    """A member that is lost cannot slip back in."""
    with pytest.raises(NotFoundError):
        await store.put("l/a", b"", GONE_LEASE)
    with pytest.raises(NotFoundError):
        await store.commit([], [Put("l/a", b"", GONE_LEASE)])
    assert await store.get("l/a") is None
