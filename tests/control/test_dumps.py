"""Dumps: what the store holds of a fleet goes out whole and comes back under a higher epoch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fleet_fakes import fleet, followed

from thunderserve.client.control import StoreDump
from thunderserve.core.errors import ConflictError, InvalidArgumentError, PreconditionError
from thunderserve.core.fleet import GroupState
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from control_under_test import ControlUnderTest

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


async def test_restore_brings_back_what_was_wanted_when_the_store_was_lost(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """Plan, drains, flips and history are there again, and epochs only rise for the router."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (_, router):
        await control.client.drain("g2")
        flip = await control.client.flip("g2", PREFILL)
        dump = await control.client.dump_store()
        control.forget()
        await control.stop()
        await control.start()
        await followed(router, lambda plan: plan.epoch > dump.epoch and len(plan.routes) == 2)
        assert await control.client.restore_store(dump, allow_older=True, validate_only=True) == (
            0,
            len(dump.records),
        )
        epoch, _ = await control.client.restore_store(dump, allow_older=True)
        restored = await followed(router, lambda plan: plan.epoch >= epoch)
        assert "restored from a dump" in restored.reason
        states = {g.group.id: g.state for g in await control.client.groups()}
        assert states["g2"] is GroupState.DRAINED
        assert await control.client.flips() == (flip,)
        assert {plan.epoch for plan in await control.client.plans()} >= {1, dump.epoch, epoch}
        assert router.epochs == sorted(set(router.epochs))


async def test_restore_is_refused_when_the_standing_plan_is_newer(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """Nothing is written; the message says how to insist."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE):
        dump = await control.client.dump_store()
        await control.client.drain("g1")
        before = await control.client.dump_store()
        with pytest.raises(ConflictError, match=r"epoch 2 is published.*--allow-older"):
            await control.client.restore_store(dump)
        assert await control.client.dump_store() == before


@pytest.mark.parametrize("control", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("record", "error", "says"),
    [
        (("plan/current", None), InvalidArgumentError, "has no plan/current"),
        (("leader", b'{"format":2}'), InvalidArgumentError, "'leader' is not a record"),
        (("flips/x", b"[]"), InvalidArgumentError, "'flips/x' is not a record"),
        (("plan/history/x", b'{"format":3}'), PreconditionError, "of format 3"),
    ],
)
async def test_restore_is_refused_when_a_record_is_none(
    control: ControlUnderTest,
    sockets: Sockets,
    record: tuple[str, bytes | None],
    error: type[Exception],
    says: str,
) -> None:
    """All is checked before anything is written."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE):
        before = await control.client.dump_store()
        records = {
            k: v for k, v in {**before.records, record[0]: record[1]}.items() if v is not None
        }
        with pytest.raises(error, match=says):
            await control.client.restore_store(StoreDump("f", 9, records))
        assert await control.client.dump_store() == before


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_restore_is_refused_when_the_model_is_another(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """A fleet serves one model."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE):
        dump = await control.client.dump_store()
        record = json.loads(dump.records["plan/current"])
        record["plan"]["model"] = "gpt-2"
        records = {"plan/current": json.dumps(record).encode()}
        with pytest.raises(InvalidArgumentError, match="gpt-2"):
            await control.client.restore_store(StoreDump("f", 9, records))
