"""GPUs that nothing tells apart are counted together; so are nodes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.search.partition import Bins
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import Cluster, Link

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeCluster = Callable[..., Cluster]


def test_bins_hold_the_gpus_of_one_type_on_one_node(make_cluster: MakeCluster) -> None:
    bins = Bins(make_cluster(["A40", "3090Ti", "A40"], ["A40"]))
    assert [(each.node, each.type, each.size) for each in bins.all] == [
        ("n0", "3090Ti", 1),
        ("n0", "A40", 2),
        ("n1", "A40", 1),
    ]


def test_bins_tell_nodes_apart_by_what_they_hold_and_by_measured_links(
    make_cluster: MakeCluster,
) -> None:
    plain = make_cluster(["A40"], ["A40"], ["3090Ti"], ["A40"])
    assert Bins(plain).classes == (("n0", "n1", "n3"), ("n2",))
    linked = Cluster(plain.nodes, plain.types, (("n0", "n1", Link(1e9)),))
    assert Bins(linked).classes == (("n0",), ("n1",), ("n2",), ("n3",))


def test_draws_are_reproducible_and_even() -> None:
    """The first value is SplitMix64's published one for seed 0."""
    assert Draws(0).below(2**64) == 0xE220A8397B1DCDAF
    first, second, other = Draws(7), Draws(7), Draws(8)
    drawn = [first.below(6) for _ in range(6000)]
    assert drawn == [second.below(6) for _ in range(6000)]
    assert drawn != [other.below(6) for _ in range(6000)]
    assert all(count == pytest.approx(1000, rel=0.15) for count in Counter(drawn).values())
