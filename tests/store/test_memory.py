"""What only the store in memory has: a clock of the test's own."""

from __future__ import annotations

from contextlib import aclosing

from thunderserve.runtime.store.memory import REMEMBERED_BATCHES, MemoryStore


async def test_memory_store_ends_leases_when_the_clock_passes_their_end() -> None:
    """Time is the injected clock's; a keep-alive counts from its moment."""
    now = 100.0
    store = MemoryStore(clock=lambda: now)
    lease = await store.grant_lease(3)
    await store.put("a", b"", lease)
    now = 102.0
    await store.keep_alive(lease)
    now = 104.9
    assert await store.get("a") is not None
    now = 105.0
    assert await store.get("a") is None
    await store.close()


async def test_memory_store_ends_watches_when_it_is_closed() -> None:
    """Nobody waits for ever on a store that is gone."""
    store = MemoryStore()
    async with aclosing(store.watch("", 0)) as batches:
        await store.put("a", b"")
        await anext(batches)
        await store.close()
        assert [batch async for batch in batches] == []


async def test_memory_store_forgets_old_changes_when_there_are_many() -> None:
    """Memory is bounded; a watcher from before must list again."""
    store = MemoryStore()
    for _ in range(REMEMBERED_BATCHES + 5):
        await store.put("a", b"")
    assert [batch async for batch in store.watch("", 1)] == []
    await store.close()
