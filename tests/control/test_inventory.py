"""Members seen as workers, nodes and groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_fakes import MODEL, EqualWeightsPlanner, make_link, make_worker

from thunderserve.control.inventory import (
    Inventory,
    check_member,
    group_statuses,
    inventory_of,
    lagging_routers,
    links_of,
    nodes_of,
)
from thunderserve.control.standing import Intent, Standing
from thunderserve.core.errors import ConflictError, InvalidArgumentError
from thunderserve.core.fleet import GroupState, Heartbeat, Member, PlanView, Router
from thunderserve.core.links import MeasuredLink
from thunderserve.core.plan import Gpu, Phase, Plan

G0, G1 = make_worker("g0"), make_worker("g1")
GROUP_OF = EqualWeightsPlanner().group_of


def live(**phases: Phase) -> Inventory:
    return inventory_of((make_worker(i), Heartbeat(phase=phase)) for i, phase in phases.items())


def test_inventory_orders_members_by_name_when_they_come_in_any_order() -> None:
    """The order of the store's answer does not matter."""
    r0, r1 = Router("r0", "i", "a"), Router("r1", "i", "a")
    members: list[tuple[Member, Heartbeat]] = [
        (r1, Heartbeat(4)),
        (G1, Heartbeat(2)),
        (G0, Heartbeat(3)),
        (r0, Heartbeat(1)),
    ]
    inventory = inventory_of(members)
    assert [each.worker for each in inventory.workers] == [G0, G1]
    assert [each.router for each in inventory.routers] == [r0, r1]
    assert inventory.highest_epoch == 4


def test_nodes_hold_gpus_and_groups_when_workers_share_a_host() -> None:
    """A host is what its workers say of it."""
    second = replace(make_worker("g9"), node_id="n-g0", gpus=(Gpu("n-g0/1", "CPU"),))
    inventory = inventory_of([(G0, Heartbeat()), (G1, Heartbeat()), (second, Heartbeat())])
    nodes = nodes_of(inventory)
    assert [(node.id, node.group_ids) for node in nodes] == [
        ("n-g0", ("g0", "g9")),
        ("n-g1", ("g1",)),
    ]
    assert [gpu.id for gpu in nodes[0].gpus] == ["n-g0/0", "n-g0/1"]


def test_group_statuses_tell_where_each_group_stands() -> None:
    """Lost, flipping, drained, serving; and live groups outside the plan serve nobody."""
    groups = tuple(GROUP_OF(make_worker(i), Phase.DECODE) for i in ("a", "b", "c", "d"))
    view = PlanView(Plan(3, "s", 0, MODEL, groups, ()), ())
    standing = Standing(view, Intent(drained=frozenset("c"), flipping="b"))
    inventory = live(b=Phase.DECODE, c=Phase.DECODE, d=Phase.DECODE, e=Phase.PREFILL)
    statuses = group_statuses(inventory, standing, GROUP_OF)
    assert [(status.group.id, status.state) for status in statuses] == [
        ("a", GroupState.LOST),
        ("b", GroupState.FLIPPING),
        ("c", GroupState.DRAINED),
        ("d", GroupState.SERVING),
        ("e", GroupState.DRAINED),
    ]
    assert statuses[0].worker is None
    assert statuses[4].group.phase is Phase.PREFILL


def test_lagging_routers_are_those_below_the_epoch() -> None:
    """Workers do not acknowledge plans; routers do."""
    routers = [(Router(f"r{epoch}", "i", "a"), Heartbeat(epoch)) for epoch in (4, 5, 6)]
    inventory = inventory_of([*routers, (G0, Heartbeat(1))])
    assert lagging_routers(inventory, 5) == ("r4",)


def test_member_is_refused_when_it_serves_another_model() -> None:
    """The message names both models."""
    with pytest.raises(InvalidArgumentError, match=rf"gpt-2.*{MODEL}"):
        check_member(replace(G0, model="gpt-2"), Inventory(), MODEL, GROUP_OF)


def test_member_is_refused_when_its_gpu_is_held_by_another() -> None:
    """Who attaches anew keeps its GPU; another name does not get it."""
    inventory = live(g0=Phase.PREFILL)
    check_member(make_worker("g0"), inventory, MODEL, GROUP_OF)
    with pytest.raises(ConflictError, match=r"n-g0/0.*g0"):
        check_member(replace(G0, group_id="thief"), inventory, MODEL, GROUP_OF)


def test_links_join_groups_when_the_peer_is_a_live_workers_sidecar() -> None:
    """What was measured of a sidecar whose worker is gone is nobody's link."""
    measured = make_link("g1:7400", 1e8)
    beat = Heartbeat(phase=Phase.PREFILL, links=(make_link("gone:7400", 1e9), measured))
    inventory = inventory_of([(G0, beat), (G1, Heartbeat(phase=Phase.DECODE))])
    assert links_of(inventory) == (MeasuredLink("g0", "g1", "n-g0", "n-g1", measured),)
