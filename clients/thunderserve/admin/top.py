"""`thunderctl top`: the fleet at a glance, live."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer  # noqa: TC002 - it reads signatures at run time
from rich.console import Group as Lines
from rich.text import Text

from thunderserve.console.output import make_table
from thunderserve.console.views import events_table, show_time
from thunderserve.core.events import Event
from thunderserve.core.fleet import GroupStatus
from thunderserve.core.plan import Phase, Plan

if TYPE_CHECKING:
    from rich.console import RenderableType

    from thunderserve.client.control import ControlClient

__all__ = ["top"]

EVENTS = 8


@dataclass(frozen=True, slots=True)
class _Fleet:
    plan: Plan
    groups: tuple[GroupStatus, ...]
    events: tuple[Event, ...]


def top(context: typer.Context) -> None:
    """Watch groups, their load, and what happens to them; Ctrl-C ends it.

    Where stdout is no terminal, or JSON or YAML is asked for, it shows them once.
    """
    session = context.obj
    session.report(_look, _view, watch=session.is_table and sys.stdout.isatty())


async def _look(control: ControlClient) -> _Fleet:
    return _Fleet(await control.plan(), await control.groups(), (await control.events())[:EVENTS])


def _view(fleet: _Fleet) -> RenderableType:
    plan = fleet.plan
    states = Counter(status.state.value.lower() for status in fleet.groups)
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    in_flight = sum(status.heartbeat.in_flight for status in fleet.groups if status.heartbeat)
    head = (
        f"{plan.model} · plan {plan.epoch} since {show_time(plan.created_unix_s)}: {plan.reason}\n"
        f"{counted} · {in_flight} requests in flight"
    )
    return Lines(Text(head), Text(), _groups_table(fleet), Text(), events_table(fleet.events))


def _groups_table(fleet: _Fleet) -> RenderableType:
    columns = ("GROUP", "PHASE", "STATE", "SHARE>", "IN FLIGHT>", "", "BEHIND>")
    most = max((s.heartbeat.in_flight for s in fleet.groups if s.heartbeat), default=0)
    order = {phase: place for place, phase in enumerate(Phase)}
    groups = sorted(fleet.groups, key=lambda s: (order[s.group.phase], s.group.id))
    return make_table(columns, (_row(status, fleet.plan, most) for status in groups))


def _row(status: GroupStatus, plan: Plan, most: int) -> tuple[object, ...]:
    """BEHIND counts plans that the worker does not follow yet."""
    group, beat = status.group, status.heartbeat
    share = sum(r.weight for r in plan.routes if group.id in {r.prefill, r.decode})
    if beat is None:
        return (group.id, group.phase, status.state, f"{share:.1%}", "-", "", "-")
    bar = "█" * round(20 * beat.in_flight / most) if most else ""
    behind = max(0, plan.epoch - beat.plan_epoch)
    return (group.id, group.phase, status.state, f"{share:.1%}", beat.in_flight, bar, behind)
