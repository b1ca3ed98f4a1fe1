"""A prefix of the store, kept up to date."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from thunderserve.core.errors import UnavailableError
from thunderserve.runtime.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from thunderserve.runtime.store.base import Batch, Entry, Listing, Store

__all__ = ["mirror"]


async def mirror(store: Store, prefix: str) -> AsyncGenerator[Mapping[str, Entry], None]:
    """All entries of a prefix by key: now, and again after every change.

    Outages are waited for; what was missed meanwhile is seen in the next mapping.
    """
    while True:
        listing = await _listing(store, prefix)
        entries = {entry.key: entry for entry in listing.entries}
        yield dict(entries)
        async with aclosing(store.watch(prefix, listing.revision)) as batches:
            async for batch in batches:
                if not batch.changes:
                    break
                _apply(entries, batch)
                yield dict(entries)


async def _listing(store: Store, prefix: str) -> Listing:
    backoff = Backoff(first_s=0.05, longest_s=1.0)
    while True:
        try:
            return await store.list(prefix)
        except UnavailableError:
            await asyncio.sleep(backoff.next_s())


def _apply(entries: dict[str, Entry], batch: Batch) -> None:
    for change in batch.changes:
        if change.entry is None:
            entries.pop(change.key, None)
        else:
            entries[change.key] = change.entry
