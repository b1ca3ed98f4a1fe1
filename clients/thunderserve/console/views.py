"""How a fleet's nouns look in a table."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group as Lines
from rich.text import Text

from thunderserve.console.output import make_table
from thunderserve.core.hardware import GIGABIT_PER_S
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType
    from rich.table import Table

    from thunderserve.core.events import Event
    from thunderserve.core.fleet import Flip, GroupStatus, Node
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.plan import Group, Plan

__all__ = [
    "events_table",
    "flips_table",
    "groups_table",
    "links_table",
    "nodes_table",
    "plan_report",
    "plan_table",
    "plans_table",
    "routes_table",
    "show_time",
]


def nodes_table(nodes: Iterable[Node]) -> Table:
    """Hosts, their GPUs and groups."""
    rows = (
        (node.id, " ".join(f"{gpu.id}:{gpu.type}" for gpu in node.gpus), " ".join(node.group_ids))
        for node in nodes
    )
    return make_table(("NODE", "GPUS", "GROUPS"), rows)


def groups_table(statuses: Iterable[GroupStatus]) -> Table:
    """Groups with their workers' last heartbeats."""
    columns = ("GROUP", "PHASE", "STATE", "TPxPP", "GPUS", "EPOCH>", "IN FLIGHT>", "LOADS>", "PID>")
    return make_table(columns, (_group_row(status) for status in statuses))


def _group_row(status: GroupStatus) -> tuple[object, ...]:
    group, beat = status.group, status.heartbeat
    living = (
        (beat.plan_epoch, beat.in_flight, beat.weight_loads, beat.process_id) if beat else "----"
    )
    return (group.id, group.phase, status.state, *_shape(group), *living)


def links_table(links: Iterable[MeasuredLink]) -> Table:
    """Measured links; rates in Gbit/s, as networks are sold."""
    columns = (
        *("FROM", "TO", "NODES", "GBIT/S>", "RTT ms>", "RETRANSMITTED>", "AGE s>", "MEASURED BY"),
        *("WIRE", "WHY"),
    )
    return make_table(columns, (_link_row(link) for link in links))


def _link_row(link: MeasuredLink) -> tuple[object, ...]:
    found = link.measurement
    chosen = found.wire_mode is not WireMode.DEFAULT
    return (
        link.from_group,
        link.to_group,
        f"{link.from_node} → {link.to_node}",
        f"{found.bytes_per_s / GIGABIT_PER_S:.3g}",
        f"{found.rtt_s * 1e3:.2f}" if found.rtt_s else "-",
        f"{found.retransmit_ratio:.3%}",
        f"{found.age_s:.0f}",
        found.method,
        found.wire_mode if chosen else "-",
        found.wire_reason if chosen else "-",
    )


def plan_table(plan: Plan, rate_rps: float | None = None) -> RenderableType:
    """A plan: its groups, each with the share of all requests that it serves.

    Args:
        plan: Any.
        rate_rps: At which requests arrive, when that is known; adds each group's load.
    """
    shares = dict.fromkeys((group.id for group in plan.groups), 0.0)
    for route in plan.routes:
        for end in {route.prefill, route.decode}:
            shares[end] += route.weight
    columns: list[str] = ["GROUP", "PHASE", "TPxPP", "GPUS", "SHARE>"]
    rows: list[list[object]] = [
        [g.id, g.phase, *_shape(g), f"{shares[g.id]:.3f}"] for g in plan.groups
    ]
    if rate_rps is not None:
        columns.append("LOAD req/s>")
        for row, group in zip(rows, plan.groups, strict=True):
            row.append(f"{shares[group.id] * rate_rps:.3f}")
    parts = (f"plan {plan.epoch}", plan.model, plan.strategy, plan.reason)
    return Lines(
        Text(" · ".join(part for part in parts if part)),
        make_table(columns, rows),
    )


def plan_report(plan: Plan, rate_rps: float | None = None) -> RenderableType:
    """A plan with its routes, what the cost model expects of it, and how good it is at least."""
    parts: list[RenderableType] = [plan_table(plan, rate_rps), Text(), routes_table(plan)]
    if plan.predicted is not None:
        rows = [
            (f.name, f"{value:.4g}")
            for f in fields(plan.predicted)
            if (value := getattr(plan.predicted, f.name)) is not None
        ]
        parts += [Text(), make_table(("EXPECTED", "VALUE>"), rows)]
    if (certificate := plan.certificate) is not None:
        least = 100 * (1 - certificate.gap_ratio)
        parts += [
            Text(),
            Text(
                f"certificate ({certificate.method}): {certificate.objective:.4g} req/s, no plan "
                f"has more than {certificate.upper_bound:.4g}; this one has at least {least:.1f}%"
            ),
        ]
    return Lines(*parts)


def routes_table(plan: Plan) -> Table:
    """A plan's routes, the heaviest first."""
    routes = sorted(plan.routes, key=lambda route: -route.weight)
    return make_table(
        ("PREFILL", "DECODE", "WEIGHT>"), ((r.prefill, r.decode, f"{r.weight:.4f}") for r in routes)
    )


def plans_table(plans: Iterable[Plan]) -> Table:
    """Published plans."""
    rows = (
        (p.epoch, show_time(p.created_unix_s), p.strategy, len(p.groups), len(p.routes), p.reason)
        for p in plans
    )
    return make_table(("EPOCH>", "PUBLISHED", "STRATEGY", "GROUPS>", "ROUTES>", "REASON"), rows)


def events_table(events: Iterable[Event]) -> Table:
    """What was written, when and for whom."""
    rows = ((e.number, show_time(e.unix_s), e.actor, e.kind, e.subject, e.detail) for e in events)
    return make_table(("EVENT>", "WHEN", "WHO", "WHAT", "ON", "DETAIL"), rows)


def flips_table(flips: Iterable[Flip]) -> Table:
    """Flips, what each step took, and why one was rolled back."""
    rows = (
        (
            flip.id,
            flip.group_id,
            f"{flip.from_phase} → {flip.to_phase}",
            flip.step,
            f"{flip.drain_s:.2f}",
            f"{flip.switch_s:.2f}",
            f"{flip.verify_s:.2f}",
            f"{flip.total_s:.2f}",
            flip.plan_epoch,
            flip.failure,
        )
        for flip in flips
    )
    columns = (
        "FLIP",
        "GROUP",
        "PHASE",
        "STEP",
        "DRAIN s>",
        "SWITCH s>",
        "VERIFY s>",
        "TOTAL s>",
        "EPOCH>",
        "FAILURE",
    )
    return make_table(columns, rows)


def _shape(group: Group) -> tuple[str, str]:
    return f"{group.tp}x{group.pp}", " ".join(f"{gpu.id}:{gpu.type}" for gpu in group.gpus)


def show_time(unix_s: float) -> str:
    """A moment, in UTC."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%SZ}"
