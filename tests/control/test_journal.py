"""Events: what was written, when and for whom, in the store itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from control_under_test import ControlUnderTest, running
from fleet_fakes import fleet
from flip_desk import KEYS, running_desk

from thunderserve.client.control import ControlClient
from thunderserve.control import journal as journals
from thunderserve.control.callers import acting_for, caller_of
from thunderserve.core.errors import UnavailableError
from thunderserve.core.events import Event, EventKind
from thunderserve.core.identity import CALLER_KEY, Identity, Role
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
OPERATOR = Identity("lab", Role.OPERATOR, "ann").uri
REPLICA = Identity("lab", Role.CONTROL, "c0").uri


async def test_events_name_who_asked_when_an_operator_flips(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """Every step and both plans are the caller's; the first plan was control's own."""
    async with (
        fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE),
        ControlClient(control.config.address, caller="ann@lab") as ann,
    ):
        before = (await ann.events())[0].number
        await ann.flip("g2", PREFILL, request_id="f-1")
        events = await ann.events()
        mine = [event for event in reversed(events) if event.number > before]
        assert [event.number for event in events] == list(range(before + len(mine), 0, -1))
        assert {event.actor for event in mine} == {'"ann@lab"'}
        assert [(e.kind, e.subject) for e in mine if e.kind is EventKind.PLAN] == [
            (EventKind.PLAN, str(plan.epoch)) for plan in reversed((await ann.plans())[:2])
        ]
        assert mine[-1].detail.startswith("flip f-1 DECODE -> PREFILL: DONE; drain 0.25 s, switch")
        assert events[-1].actor == "control"


@pytest.mark.etcd
async def test_events_name_who_asked_when_a_follower_passes_it_on(
    etcd_control: ControlUnderTest, sockets: Sockets
) -> None:
    """Not the follower: the caller."""
    address = sockets("follower")
    async with (
        running(replace(etcd_control.config, address=address)),
        fleet(etcd_control.addresses, sockets, g0=PREFILL, g1=DECODE),
        ControlClient(address, caller="ann@lab") as ann,
    ):
        while True:
            try:
                await ann.drain("g1")
                break
            except UnavailableError:
                await asyncio.sleep(0.02)
        assert (await ann.events())[0].actor == '"ann@lab"'


async def test_events_stay_as_many_as_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes the place of one that is older, also under the next leader's numbers."""
    monkeypatch.setattr(journals, "REMEMBERED_EVENTS", 3)
    async with running_desk() as desk:
        for number in range(5):
            await desk.journal.commit([], [], Event(EventKind.PLAN, str(number), ""))
        later = journals.Journal(desk.store, KEYS, desk.leadership, lambda: 0.0)
        with acting_for("ann"):
            await later.commit([], [], Event(EventKind.PLAN, "5", ""))
        assert [(e.subject, e.actor) for e in await later.events()] == [
            ("5", "ann"),
            ("4", "control"),
            ("3", "control"),
        ]


async def test_event_is_not_there_when_its_write_was_refused() -> None:
    """A comparison that fails leaves no event and no gap."""
    async with running_desk() as desk:
        before = await desk.journal.events()
        refused = await desk.journal.commit(
            [replace(desk.leadership.fence(), revision=7)], [], Event(EventKind.PLAN, "9", "")
        )
        assert refused is None
        assert await desk.journal.events() == before
        await desk.journal.commit([], [], Event(EventKind.PLAN, "9", ""))
        assert (await desk.journal.events())[0].number == before[0].number + 1


@pytest.mark.parametrize(
    ("given", "certified", "forwarded", "actor"),
    [
        ("ann@lab", (), False, '"ann@lab"'),
        ("", (), False, '"unnamed"'),
        ("x\ny" + "z" * 200, (), False, '"x?y' + "z" * 125 + '"'),
        ("ann@lab", (OPERATOR,), False, OPERATOR),
        ("ann@lab", ("a.domain", OPERATOR), False, OPERATOR),
        (OPERATOR, (REPLICA,), True, OPERATOR),
        ('"ann@lab"', (), True, '"ann@lab"'),
        ("root", (OPERATOR,), True, OPERATOR),
    ],
)
def test_caller_is_what_the_certificate_says_before_what_it_says_itself(
    given: str, certified: tuple[str, ...], *, forwarded: bool, actor: str
) -> None:
    """Only a control replica's word about its caller is taken."""
    names = [name.encode() for name in certified]
    assert caller_of({CALLER_KEY: given}, names, forwarded=forwarded) == actor
