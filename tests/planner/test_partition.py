"""Symmetric partitions are one state; moves keep every GPU and never invent one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.moves import MOVES, neighbour
from thunderserve.control.planner.partition import Bins, Part
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import Cluster, Link
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.moves import Move

    MakeCluster = Callable[..., Cluster]

P, D = Phase.PREFILL, Phase.DECODE


def totals(parts: list[Part] | tuple[Part, ...]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*(part.counts for part in parts), strict=True))


def test_bins_hold_the_gpus_of_one_type_on_one_node(make_cluster: MakeCluster) -> None:
    bins = Bins(make_cluster(["A40", "3090Ti", "A40"], ["A40"]))
    assert [(each.node, each.type, each.size) for each in bins.all] == [
        ("n0", "3090Ti", 1),
        ("n0", "A40", 2),
        ("n1", "A40", 1),
    ]


def test_canonical_ignores_the_order_of_parts_and_drops_empty_ones(
    make_cluster: MakeCluster,
) -> None:
    bins = Bins(make_cluster(["A40"] * 3))
    one, two, none = Part(P, (1,)), Part(D, (2,)), Part(D, (0,))
    assert bins.canonical([one, two]) == bins.canonical([none, two, one])
    assert len(bins.canonical([none, two, one])) == 2


def test_canonical_exchanges_nodes_that_are_alike(make_cluster: MakeCluster) -> None:
    bins = Bins(make_cluster(["A40"] * 2, ["A40"] * 2, ["3090Ti"]))
    here = [Part(P, (2, 0, 0)), Part(D, (0, 1, 0)), Part(D, (0, 1, 0)), Part(D, (0, 0, 1))]
    there = [Part(P, (0, 2, 0)), Part(D, (1, 0, 0)), Part(D, (1, 0, 0)), Part(D, (0, 0, 1))]
    assert bins.canonical(here) == bins.canonical(there)


def test_canonical_tells_nodes_apart_when_a_link_was_measured(make_cluster: MakeCluster) -> None:
    plain = make_cluster(["A40"], ["A40"], ["A40"])
    linked = Cluster(plain.nodes, plain.types, (("n0", "n1", Link(1e9)),))
    bins = Bins(linked)
    assert bins.canonical([Part(P, (1, 0, 0))]) != bins.canonical([Part(P, (0, 1, 0))])
    assert Bins(plain).canonical([Part(P, (1, 0, 0))]) == Bins(plain).canonical(
        [Part(P, (0, 1, 0))]
    )


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_moves_keep_every_gpu(make_cluster: MakeCluster, seed: int, steps: int) -> None:
    bins = Bins(make_cluster(["A40"] * 3, ["A40"] * 3, ["3090Ti", "3090Ti", "A5000"]))
    draws = Draws(seed)
    state = bins.canonical([Part(P, bins.sizes)])
    for _ in range(steps):
        state = bins.canonical(neighbour(state, draws, (P, D)))
        assert all(min(part.counts) >= 0 and part.size for part in state)
        # Alike nodes may have been exchanged; they hold the same.
        assert totals(state) == bins.sizes


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_every_move_makes_another_partition(make_cluster: MakeCluster, move: Move) -> None:
    bins = Bins(make_cluster(["A40"] * 4, ["3090Ti"] * 4))
    state = bins.canonical([Part(P, (4, 0)), Part(D, (0, 4))])
    draws = Draws(3)
    made = [move(state, draws, (P, D)) for _ in range(20)]
    different = {bins.canonical(parts) for parts in made if parts is not None} - {state}
    assert different


def test_only_the_configuration_can_change_when_one_gpu_may_only_prefill(
    make_cluster: MakeCluster,
) -> None:
    bins = Bins(make_cluster(["A40"]))
    state = bins.canonical([Part(P, (1,))])
    for seed in range(20):
        (part,) = neighbour(state, Draws(seed), (P,))
        assert (part.phase, part.counts) == (P, (1,))


def test_neighbour_is_the_same_partition_when_there_is_nothing_to_move() -> None:
    assert neighbour((), Draws(0), (P, D)) == []


def test_draws_are_reproducible_and_even() -> None:
    """The first value is SplitMix64's published one for seed 0."""
    assert Draws(0).below(2**64) == 0xE220A8397B1DCDAF
    first, second, other = Draws(7), Draws(7), Draws(8)
    drawn = [first.below(6) for _ in range(6000)]
    assert drawn == [second.below(6) for _ in range(6000)]
    assert drawn != [other.below(6) for _ in range(6000)]
    assert all(count == pytest.approx(1000, rel=0.15) for count in Counter(drawn).values())
