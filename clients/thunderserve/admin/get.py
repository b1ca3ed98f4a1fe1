"""`thunderctl get`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from thunderserve.admin.events import events
from thunderserve.console.views import (
    flips_table,
    groups_table,
    links_table,
    nodes_table,
    plan_table,
    routes_table,
)
from thunderserve.core.plan_file import plan_to_mapping

__all__ = ["application"]


def application() -> typer.Typer:
    """The subcommands of `get`."""
    app = typer.Typer(no_args_is_help=True, help="Show what there is.")
    for command in (nodes, groups, plan, routes, links, flips, events):
        app.command()(command)
    return app


def nodes(context: typer.Context) -> None:
    """Show every host with its GPUs and groups."""
    found = context.obj.ask(lambda control: control.nodes())
    context.obj.show(found, nodes_table(found))


def groups(context: typer.Context) -> None:
    """Show every group with its worker and state."""
    found = context.obj.ask(lambda control: control.groups())
    context.obj.show(found, groups_table(found))


def plan(
    context: typer.Context,
    epoch: Annotated[int, typer.Option(min=0, help="0 is the current plan.")] = 0,
) -> None:
    """Show a plan; with `-o json` in the form that `plan apply` reads."""
    found = context.obj.ask(lambda control: control.plan(epoch))
    context.obj.show(plan_to_mapping(found), plan_table(found))


def routes(context: typer.Context) -> None:
    """Show the current plan's routes."""
    found = context.obj.ask(lambda control: control.plan())
    context.obj.show(found.routes, routes_table(found))


def links(context: typer.Context) -> None:
    """Show measured links between groups, and how KV that is left to the sidecar travels there."""
    found = context.obj.ask(lambda control: control.links())
    context.obj.show(found, links_table(found))


def flips(context: typer.Context) -> None:
    """Show recorded flips."""
    found = context.obj.ask(lambda control: control.flips())
    context.obj.show(found, flips_table(found))
