"""Records name their format; older ones are read, newer ones are left alone."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from fleet_fakes import make_worker

from thunderserve.control.bootstrap import serve
from thunderserve.control.records import (
    FORMAT,
    Keys,
    flip_from_value,
    flip_to_value,
    member_from_value,
    member_to_value,
    request_from_value,
    request_to_value,
)
from thunderserve.core.errors import InvalidArgumentError, PreconditionError
from thunderserve.core.fleet import Flip, FlipStep, Heartbeat
from thunderserve.core.plan import Phase
from thunderserve.runtime.store.etcd import EtcdStore
from thunderserve.runtime.store.etcd_cluster import EtcdAccess

if TYPE_CHECKING:
    from control_under_test import ControlUnderTest

FLIP = Flip("f", "g", Phase.PREFILL, Phase.DECODE, FlipStep.DONE)


def test_record_is_read_when_it_is_of_the_format_before() -> None:
    """Format 1 did not name itself."""
    record = json.loads(flip_to_value(FLIP))
    assert record.pop("format") == FORMAT
    assert flip_from_value(json.dumps(record).encode()) == FLIP
    assert request_from_value(b"7") == request_from_value(request_to_value(7)) == 7
    member = member_to_value(make_worker("g0"), Heartbeat())
    assert member_from_value(member) == (make_worker("g0"), Heartbeat())


@pytest.mark.parametrize("written", [FORMAT + 1, 0, "2"])
def test_record_is_refused_when_its_format_is_not_known(written: object) -> None:
    """The message names the format and those that are read."""
    value = json.dumps({**json.loads(flip_to_value(FLIP)), "format": written}).encode()
    with pytest.raises(PreconditionError, match=rf"format {written}.* {FORMAT - 1} and {FORMAT}"):
        flip_from_value(value)


def test_record_is_refused_when_it_is_no_object() -> None:
    """A number is none."""
    with pytest.raises(InvalidArgumentError, match="JSON object"):
        flip_from_value(b"5")


@pytest.mark.etcd
async def test_control_stops_and_leaves_the_data_when_it_is_of_a_newer_format(
    etcd_control: ControlUnderTest,
) -> None:
    """An old replica beside a new one must not decide on what it cannot read."""
    config, key = etcd_control.config, Keys(etcd_control.config.fleet).current
    await etcd_control.stop()
    store = EtcdStore(EtcdAccess(config.etcd_endpoints))
    newer = b'{"format":3,"plan":{"who":"knows"}}'
    await store.put(key, newer)
    with pytest.raises(PreconditionError, match="format 3"):
        await serve(config, asyncio.Event())
    entry = await store.get(key)
    assert entry is not None
    assert entry.value == newer
    await store.close()
