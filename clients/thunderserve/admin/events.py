"""`thunderctl get events` and `thunderctl audit`: what was changed, when, and who asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from thunderserve.console.views import events_table

if TYPE_CHECKING:
    from thunderserve.core.events import Event

__all__ = ["audit", "events"]

_Limit = Annotated[int, typer.Option(min=1, help="The newest so many.")]


def events(context: typer.Context, *, limit: _Limit = 50) -> None:
    """Show what control wrote, newest first: plans and the steps of flips."""
    found: tuple[Event, ...] = context.obj.ask(lambda control: control.events())
    context.obj.show(found[:limit], events_table(found[:limit]))


def audit(context: typer.Context, *, limit: _Limit = 50) -> None:
    """Show who changed what and when: the events that somebody asked for.

    A name in quotes was given by the caller; without quotes it is a certificate's.
    """
    found: tuple[Event, ...] = context.obj.ask(lambda control: control.events())
    asked = [event for event in found if event.asked_for][:limit]
    context.obj.show(asked, events_table(asked))
