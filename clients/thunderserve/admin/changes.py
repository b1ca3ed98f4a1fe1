"""`thunderctl flip`, `drain` and `undrain`: change what a group does."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from thunderserve.console.output import say
from thunderserve.console.views import flips_table, groups_table
from thunderserve.core.fleet import FlipStep
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.core.fleet import GroupStatus

__all__ = ["drain", "flip", "undrain"]

# What a flip may take besides its drain: acknowledgements, the switch itself, verification.
FLIP_MARGIN_S = 90.0

_Group = Annotated[str, typer.Argument(help="The group's id.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check that it is allowed and change nothing.")
]


class PhaseName(StrEnum):
    """A phase as a person types it."""

    PREFILL = "prefill"
    DECODE = "decode"
    COLOCATED = "colocated"


def flip(
    context: typer.Context,
    group: _Group,
    *,
    phase: Annotated[PhaseName, typer.Option(help="What the group is to do.")],
    drain_timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds that requests in flight may take to finish.")
    ] = 30.0,
    dry_run: DryRun = False,
) -> None:
    """Change a group's phase without loading weights; returns when the flip has ended."""
    result = context.obj.ask(
        lambda control: control.flip(
            group,
            Phase[phase.name],
            drain_timeout_s=drain_timeout,
            validate_only=dry_run,
            request_id=str(uuid.uuid4()),
        ),
        usual_timeout_s=drain_timeout + FLIP_MARGIN_S,
    )
    if dry_run:
        say(f"{group} can be flipped to {phase}")
        return
    context.obj.show(result, flips_table([result]))
    if result.step is FlipStep.ROLLED_BACK:
        say(f"thunderctl: the flip of {group} was rolled back: {result.failure}")
        raise typer.Exit(1)


def drain(context: typer.Context, group: _Group, *, dry_run: DryRun = False) -> None:
    """Take a group out of the routes; requests in flight finish."""
    status: GroupStatus = context.obj.ask(
        lambda control: control.drain(group, validate_only=dry_run, request_id=str(uuid.uuid4()))
    )
    _show(context, status, "drained", dry_run=dry_run)


def undrain(context: typer.Context, group: _Group, *, dry_run: DryRun = False) -> None:
    """Put a drained group back into the routes."""
    status: GroupStatus = context.obj.ask(
        lambda control: control.undrain(group, validate_only=dry_run, request_id=str(uuid.uuid4()))
    )
    _show(context, status, "put back", dry_run=dry_run)


def _show(context: typer.Context, status: GroupStatus, done: str, *, dry_run: bool) -> None:
    if dry_run:
        say(f"{status.group.id} can be {done}, and would stand like this; nothing was changed")
    context.obj.show(status, groups_table([status]))
