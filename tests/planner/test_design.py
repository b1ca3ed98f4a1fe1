"""A design is a group without names; its layers say what moves from where to where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.design import (
    Design,
    DesignStage,
    design_of,
    replica_of,
    transfer_shares,
)
from thunderserve.core.plan import Gpu, Group, Phase, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.core.hardware import Cluster

    MakeCluster = Callable[..., Cluster]


def design(*stages: tuple[int, str]) -> Design:
    return Design(tuple(DesignStage(layers, node, ("A40",)) for layers, node in stages))


def test_design_of_a_group_keeps_layers_nodes_and_types() -> None:
    stages = (
        Stage(5, (Gpu("n0/0", "A40"), Gpu("n0/1", "A40"))),
        Stage(3, (Gpu("n1/0", "A5000"), Gpu("n1/1", "A5000"))),
    )
    found = design_of(Group("g", Phase.DECODE, 2, 2, stages))
    assert found.stages == (
        DesignStage(5, "n0", ("A40", "A40")),
        DesignStage(3, "n1", ("A5000", "A5000")),
    )
    assert (found.tp, found.pp) == (2, 2)


def test_groups_of_one_shape_on_different_nodes_have_one_replica(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(["A40"], ["A40"], ["3090Ti"])
    assert replica_of(design((8, "n0")), cluster) == replica_of(design((8, "n1")), cluster)


def test_replica_joins_stages_by_the_links_between_their_nodes(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(["A40", "A40"], ["A40"])
    local, remote, last = replica_of(design((3, "n0"), (3, "n0"), (2, "n1")), cluster)
    assert local.next_link == cluster.link("n0", "n0")
    assert remote.next_link == cluster.link("n0", "n1")
    assert last.next_link is None


def test_layers_move_from_the_node_that_computed_them_to_the_node_that_needs_them() -> None:
    """Eight layers: 6 + 2 on one side, 4 + 4 on the other."""
    shares = transfer_shares(design((6, "a"), (2, "b")), design((4, "c"), (4, "b")))
    assert shares == pytest.approx({("a", "c"): 0.5, ("a", "b"): 0.25, ("b", "b"): 0.25})
