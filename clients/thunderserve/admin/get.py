"""`thunderctl get`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from thunderserve.admin.events import events
from thunderserve.admin.session import Watch  # noqa: TC001 - typer reads signatures at run time
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


def nodes(context: typer.Context, *, watch: Watch = False) -> None:
    """Show every host with its GPUs and groups."""
    context.obj.report(lambda control: control.nodes(), nodes_table, watch=watch)


def groups(context: typer.Context, *, watch: Watch = False) -> None:
    """Show every group with its worker and state."""
    context.obj.report(lambda control: control.groups(), groups_table, watch=watch)


def plan(
    context: typer.Context,
    *,
    epoch: Annotated[int, typer.Option(min=0, help="0 is the current plan.")] = 0,
    watch: Watch = False,
) -> None:
    """Show a plan; with `-o json` in the form that `plan apply` reads."""
    context.obj.report(
        lambda control: control.plan(epoch), plan_table, data=plan_to_mapping, watch=watch
    )


def routes(context: typer.Context, *, watch: Watch = False) -> None:
    """Show the current plan's routes."""
    context.obj.report(
        lambda control: control.plan(), routes_table, data=lambda plan: plan.routes, watch=watch
    )


def links(context: typer.Context, *, watch: Watch = False) -> None:
    """Show measured links between groups, and how KV that is left to the sidecar travels there."""
    context.obj.report(lambda control: control.links(), links_table, watch=watch)


def flips(context: typer.Context, *, watch: Watch = False) -> None:
    """Show recorded flips."""
    context.obj.report(lambda control: control.flips(), flips_table, watch=watch)
