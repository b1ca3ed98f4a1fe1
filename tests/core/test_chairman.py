"""Draws match their shares from the first one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.chairman import Claimant, choose


@given(weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=12), draws=st.integers(1, 200))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_counts_stay_within_one_of_their_shares(weights: list[float], draws: int) -> None:
    claimants = [Claimant((str(i), str(i)), weight) for i, weight in enumerate(weights)]
    counts = dict.fromkeys((claimant.ends for claimant in claimants), 0)
    for drawn in range(1, draws + 1):
        counts[choose(claimants).ends] += 1
        for claimant in claimants:
            share = claimant.weight / sum(weights) * drawn
            assert abs(counts[claimant.ends] - share) < 1 + 1e-9


def test_equal_claims_are_taken_in_the_order_of_their_ends() -> None:
    claimants = [Claimant((name, name), 1.0) for name in ("b", "a")]
    assert [choose(claimants).ends[0] for _ in range(4)] == ["a", "b", "a", "b"]
