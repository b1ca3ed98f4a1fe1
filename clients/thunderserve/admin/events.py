"""`thunderctl get events` and `thunderctl audit`: what was changed, when, and who asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from thunderserve.admin.session import Watch  # noqa: TC001 - typer reads signatures at run time
from thunderserve.console.views import events_table

if TYPE_CHECKING:
    from thunderserve.client.control import ControlClient
    from thunderserve.core.events import Event

__all__ = ["audit", "events"]

_Limit = Annotated[int, typer.Option(min=1, help="The newest so many.")]


def events(context: typer.Context, *, limit: _Limit = 50, watch: Watch = False) -> None:
    """Show what control wrote, newest first: plans and the steps of flips."""

    async def newest(control: ControlClient) -> tuple[Event, ...]:
        return (await control.events())[:limit]

    context.obj.report(newest, events_table, watch=watch)


def audit(context: typer.Context, *, limit: _Limit = 50, watch: Watch = False) -> None:
    """Show who changed what and when: the events that somebody asked for.

    A name in quotes was given by the caller; without quotes it is a certificate's.
    """

    async def asked_for(control: ControlClient) -> tuple[Event, ...]:
        return tuple(event for event in await control.events() if event.asked_for)[:limit]

    context.obj.report(asked_for, events_table, watch=watch)
