"""Symmetric layouts are one; moves keep every GPU and never invent one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.search.blocks import Block, Blocks, layout
from thunderserve.control.planner.search.moves import MOVES, changes, crossings
from thunderserve.control.planner.search.partition import Bins, Part
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import Cluster, Link
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.search.moves import Move

    MakeCluster = Callable[..., Cluster]

P, D, C = Phase.PREFILL, Phase.DECODE, Phase.COLOCATED


def totals(parts: tuple[Part, ...]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*(part.counts for part in parts), strict=True))


def test_layout_ignores_the_order_of_parts_and_drops_empty_ones(make_cluster: MakeCluster) -> None:
    blocks = Blocks(Bins(make_cluster(["A40"] * 3)))
    one, two, none = Part(P, (1,)), Part(D, (2,)), Part(D, (0,))
    found = blocks.layout_of([none, two, one])
    assert found == blocks.layout_of([one, two])
    assert found == ((Block((0,), (two, one)), 1),)


def test_layout_does_not_name_alike_nodes(make_cluster: MakeCluster) -> None:
    blocks = Blocks(Bins(make_cluster(["A40"] * 2, ["A40"] * 2, ["3090Ti"])))
    here = [Part(P, (2, 0, 0)), Part(D, (0, 1, 0)), Part(D, (0, 1, 0)), Part(D, (0, 0, 1))]
    there = [Part(P, (0, 2, 0)), Part(D, (1, 0, 0)), Part(D, (1, 0, 0)), Part(D, (0, 0, 1))]
    assert blocks.layout_of(here) == blocks.layout_of(there)
    assert sum(count for _, count in blocks.layout_of(here)) == 3


def test_layout_counts_blocks_that_are_the_same(make_cluster: MakeCluster) -> None:
    blocks = Blocks(Bins(make_cluster(["A40"], ["A40"], ["A40"])))
    parts = [Part(P, (1, 0, 0)), Part(D, (0, 1, 0)), Part(P, (0, 0, 1))]
    assert dict(blocks.layout_of(parts)) == {
        Block((0,), (Part(P, (1,)),)): 2,
        Block((0,), (Part(D, (1,)),)): 1,
    }


def test_layout_tells_nodes_apart_when_a_link_was_measured(make_cluster: MakeCluster) -> None:
    plain = make_cluster(["A40"], ["A40"], ["A40"])
    linked = Cluster(plain.nodes, plain.types, (("n0", "n1", Link(1e9)),))
    one, other = [
        [Part(P, counts), Part(D, rest)]
        for counts, rest in (((1, 0, 0), (0, 1, 1)), ((0, 1, 0), (1, 0, 1)))
    ]
    assert Blocks(Bins(plain)).layout_of(one) == Blocks(Bins(plain)).layout_of(other)
    assert Blocks(Bins(linked)).layout_of(one) != Blocks(Bins(linked)).layout_of(other)


def test_nodes_that_a_group_joins_are_one_block_until_nothing_joins_them(
    make_cluster: MakeCluster,
) -> None:
    blocks = Blocks(Bins(make_cluster(["3090Ti"] * 2, ["A40"] * 2, ["A40"] * 2)))
    joined = [Part(D, (0, 1, 1)), Part(P, (0, 1, 0)), Part(P, (0, 0, 1)), Part(P, (2, 0, 0))]
    two = Block((1, 1), (Part(D, (1, 1)), Part(P, (0, 1)), Part(P, (1, 0))))
    assert dict(blocks.layout_of(joined)) == {two: 1, Block((0,), (Part(P, (2,)),)): 1}
    parted = (Part(D, (0, 2)), Part(P, (1, 0)), Part(P, (1, 0)))
    alone = (Block((1,), (Part(P, (1,)), Part(P, (1,)))), Block((1,), (Part(D, (2,)),)))
    assert sorted(blocks.settle((1, 1), parted)) == sorted(alone)


def test_a_joined_block_has_one_form_whichever_alike_node_comes_first(
    make_cluster: MakeCluster,
) -> None:
    blocks = Blocks(Bins(make_cluster(["A40"] * 3, ["A40"] * 3)))
    here = blocks.settle((0, 0), [Part(D, (2, 1)), Part(P, (1, 0)), Part(C, (0, 2))])
    there = blocks.settle((0, 0), [Part(D, (1, 2)), Part(P, (0, 1)), Part(C, (2, 0))])
    assert here == there
    assert len(here) == 1


def test_blocks_are_placed_on_nodes_of_their_classes_once(make_cluster: MakeCluster) -> None:
    blocks = Blocks(Bins(make_cluster(["A40"], ["3090Ti"], ["A40"], ["A40"])))
    joined = Block((0, 1), (Part(D, (1, 1)),))
    alone = Block((0,), (Part(P, (1,)),))
    placed = list(blocks.placed(layout({joined: 1, alone: 2})))
    assert [block for block, _ in placed] == [alone, alone, joined]
    assert [nodes for _, nodes in placed] == [{"n0": "n0"}, {"n0": "n2"}, {"n0": "n3", "n1": "n1"}]
    assert blocks.wide(joined.classes, (1, 1)) == (1, 1, 0, 0)


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 25))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_moves_keep_every_gpu(make_cluster: MakeCluster, seed: int, steps: int) -> None:
    bins = Bins(make_cluster(["A40"] * 3, ["A40"] * 3, ["3090Ti", "3090Ti", "A5000"]))
    blocks, draws = Blocks(bins), Draws(seed)
    state: tuple[Part, ...] = (Part(P, bins.sizes),)
    classes = (0, 0, 1)
    for _ in range(steps):
        state = draws.pick(list(changes(state, (P, D, C))))
        assert all(min(part.counts) >= 0 for part in state)
        assert totals(state) == bins.sizes
        settled = blocks.settle(classes, state)
        assert Counter(each for block in settled for each in block.classes) == Counter(classes)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_every_move_makes_another_partition(move: Move) -> None:
    parts = (Part(P, (4, 0)), Part(D, (0, 4)))
    different = {tuple(sorted(made)) for made in move(parts, (P, D))} - {tuple(sorted(parts))}
    assert different


def test_crossings_join_one_group_of_each_block() -> None:
    ones, others = (Part(P, (2, 0)), Part(P, (1, 0))), (Part(D, (0, 3)),)
    made = list(crossings(ones, others))
    assert all(totals(parts) == (3, 3) for parts in made)
    assert all(any(min(part.counts) > 0 for part in parts) for parts in made)
    assert (Part(P, (1, 0)), Part(P, (2, 3))) in made


def test_only_the_configuration_can_change_when_one_gpu_may_only_prefill() -> None:
    made = list(changes((Part(P, (1,)),), (P,)))
    assert {(part.phase, part.counts) for (part,) in made} == {(P, (1,))}
    assert {part.haste for (part,) in made} >= {1, 2}
    assert Part(P, (1,)) not in {part for (part,) in made}


def test_nothing_changes_when_there_is_nothing_to_move() -> None:
    assert list(changes((), (P, D))) == []
