"""The two stores, each empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from thunderserve.runtime.store.base import Delete
from thunderserve.runtime.store.etcd import EtcdStore
from thunderserve.runtime.store.etcd_cluster import EtcdAccess
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from etcd_server import EtcdServer

    from thunderserve.runtime.store.base import Store


OPERATIONS = 100  # etcd takes at most 128 in one transaction


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made: Store = MemoryStore()
    if request.param == "etcd":
        server: EtcdServer = request.getfixturevalue("etcd")
        made = EtcdStore(EtcdAccess((server.endpoint,)))
        present = [entry.key for entry in (await made.list("")).entries]
        for first in range(0, len(present), OPERATIONS):
            keys = present[first : first + OPERATIONS]
            await made.commit([], [Delete(key) for key in keys])
    yield made
    await made.close()
