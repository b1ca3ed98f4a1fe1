"""Dispatch counts follow the plan's weights from the first request on."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from fake_workers import fake_worker_noun, plan_of
from hypothesis import example, given
from hypothesis import strategies as st

from thunderserve.core.errors import ConflictError
from thunderserve.core.plan import Phase
from thunderserve.router.routing import Avoid, RouteTable

if TYPE_CHECKING:
    from thunderserve.core.fleet import Worker


def worker(group_id: str) -> Worker:
    return fake_worker_noun(group_id, Phase.PREFILL, 0, "a:1")


def table_of(*routes: tuple[str, str, float], epoch: int = 1) -> RouteTable:
    table = RouteTable()
    follow(table, *routes, epoch=epoch)
    return table


def follow(table: RouteTable, *routes: tuple[str, str, float], epoch: int) -> None:
    groups = {end for route in routes for end in route[:2]}
    table.update(plan_of(*routes, epoch=epoch), [worker(group) for group in sorted(groups)])


def draws(table: RouteTable, count: int, avoid: Avoid = Avoid()) -> list[tuple[str, str]]:  # noqa: B008 - immutable
    pairs = [table.draw(avoid) for _ in range(count)]
    assert None not in pairs
    return [pair.ends for pair in pairs if pair is not None]


weights = st.lists(st.integers(1, 1000), min_size=1, max_size=12).map(
    lambda parts: [part / sum(parts) for part in parts]
)


def test_draw_gives_30_of_100_when_the_weight_is_0_3() -> None:
    """100 requests over weights 0.3 and 0.7 are 30 and 70, and interleaved."""
    drawn = draws(table_of(("p", "d0", 0.3), ("p", "d1", 0.7)), 100)

    assert drawn.count(("p", "d0")) == 30
    gaps = [b - a for a, b in pairwise(i for i, ends in enumerate(drawn) if ends == ("p", "d0"))]
    assert max(gaps) <= 4


# With these weights the largest deficit alone would owe one route 1.46 requests.
HARD = [part / 333 for part in (1, 3, 100, 1, 1, 3, 10, 10, 3, 1, 100, 100)]


@example(weights=HARD, count=300)
@given(weights=weights, count=st.integers(1, 200))
def test_draw_stays_within_one_of_every_weight_at_every_moment(
    weights: list[float], count: int
) -> None:
    """However many routes, and after however few requests."""
    table = table_of(*((f"p{i}", f"d{i}", w) for i, w in enumerate(weights)))
    seen = dict.fromkeys(range(len(weights)), 0)
    for n in range(1, count + 1):
        seen[int(draws(table, 1)[0][0][1:])] += 1
        assert all(abs(seen[i] - w * n) < 1 + 1e-6 for i, w in enumerate(weights))


@given(weights=weights, excluded=st.integers(0, 11), count=st.integers(1, 100))
def test_draw_renormalises_when_a_group_is_avoided(
    weights: list[float], excluded: int, count: int
) -> None:
    """The others share the requests by their weights, and the avoided one gets none."""
    table = table_of(*(("p", f"d{i}", w) for i, w in enumerate(weights)))
    avoid = Avoid(frozenset({f"d{excluded}"}))
    rest = {f"d{i}": w for i, w in enumerate(weights) if i != excluded}
    if not rest:
        assert table.draw(avoid) is None
        return

    drawn = [ends[1] for ends in draws(table, count, avoid)]

    total = sum(rest.values())
    assert all(abs(drawn.count(d) - count * w / total) < 1 + 1e-6 for d, w in rest.items())
    assert f"d{excluded}" not in drawn or excluded >= len(weights)


def test_draw_is_none_when_no_worker_is_alive() -> None:
    """A plan without live workers serves nobody."""
    table = RouteTable()
    table.update(plan_of(("p", "d", 1.0)), [worker("p")])

    assert table.draw() is None
    assert not table.ready


def test_draw_avoids_one_pair_when_only_the_pair_is_avoided() -> None:
    """Its groups go on in other pairs."""
    table = table_of(("p", "d0", 0.5), ("p", "d1", 0.5))

    drawn = draws(table, 10, Avoid(pairs=frozenset({("p", "d0")})))

    assert set(drawn) == {("p", "d1")}


def test_draw_skips_routes_when_their_weight_is_zero() -> None:
    """Weight zero is no route."""
    assert set(draws(table_of(("p", "d0", 0.0), ("p", "d1", 1.0)), 5)) == {("p", "d1")}


def test_update_refuses_when_the_epoch_is_lower() -> None:
    """A stale plan changes nothing."""
    table = table_of(("p", "d0", 1.0), epoch=7)

    with pytest.raises(ConflictError, match="plan 6 is older than plan 7"):
        follow(table, ("p", "d1", 1.0), epoch=6)

    assert draws(table, 1) == [("p", "d0")]
    assert table.epoch == 7


@given(first=st.integers(1, 50), second=st.integers(1, 50))
def test_update_keeps_what_routes_are_owed_when_they_stay(first: int, second: int) -> None:
    """The same weights in a new plan go on as if there had been one plan."""
    routes = (("p", "d0", 0.3), ("p", "d1", 0.7))
    table = table_of(*routes)
    drawn = draws(table, first)
    follow(table, *routes, epoch=2)

    drawn += draws(table, second)

    assert abs(drawn.count(("p", "d0")) - 0.3 * (first + second)) < 1 + 1e-6


@given(before=weights, after=weights, count=st.integers(1, 60))
def test_update_owes_nothing_large_when_routes_come_and_go(
    before: list[float], after: list[float], count: int
) -> None:
    """Counts under the new plan follow its weights, off by what the old one still owed."""
    table = table_of(*(("p", f"d{i}", w) for i, w in enumerate(before)))
    draws(table, count)
    follow(table, *(("p", f"d{i}", w) for i, w in enumerate(after)), epoch=2)

    drawn = draws(table, 50)

    assert sum(entry.deficit for entry in table._entries) == pytest.approx(0, abs=1e-6)
    assert all(abs(drawn.count(("p", f"d{i}")) - 50 * w) < 4 for i, w in enumerate(after))


def test_counts_list_every_route_when_some_were_not_used() -> None:
    """Routes of the plan are listed from the start, and those used before stay listed."""
    table = table_of(("p", "d0", 1.0))
    draws(table, 3)
    follow(table, ("p", "d1", 1.0), epoch=2)

    counts = {(c.prefill, c.decode): c.dispatches for c in table.counts()}

    assert counts == {("p", "d0"): 3, ("p", "d1"): 0}


def test_pair_is_colocated_when_a_route_joins_a_group_to_itself() -> None:
    """Such a pair has one worker."""
    pair = table_of(("c", "c", 1.0)).draw()

    assert pair is not None
    assert pair.colocated
