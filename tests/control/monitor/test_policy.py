"""Phases change when that is worth it, and do not swing back and forth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderserve.control.monitor.policy import (
    Action,
    Limits,
    Options,
    PastFlip,
    decide,
)
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

NOW_S = 10_000.0
GOOD = Options(
    kept_rps=4.0,
    routed_rps=5.0,
    flipped_rps=8.0,
    flips=(("g1", Phase.DECODE),),
    during_rps=4.0,
    flipping_s=5.0,
)


def test_decide_flips_when_the_gain_outweighs_the_cost() -> None:
    """The reason says what is gained and what it costs."""
    decision = decide(GOOD, (), NOW_S, Limits())
    assert decision.action is Action.FLIP
    assert decision.reason == "g1 to DECODE: +100% in time, costs 5.0 requests"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (replace(GOOD, flipped_rps=5.1), "gain 2.0%, less than 5%"),
        (replace(GOOD, flips=()), "no flip would help"),
        (replace(GOOD, during_rps=0.0, flipping_s=900.0), "cost 4500.0"),
    ],
    ids=["little gain", "no flips", "costs more"],
)
def test_decide_takes_routes_alone_when_flips_are_not_worth_it(
    options: Options, reason: str
) -> None:
    """Routes cost nothing, so they are taken at once."""
    decision = decide(options, (), NOW_S, Limits())
    assert decision.action is Action.ROUTES
    assert reason in decision.reason


def test_decide_holds_when_nothing_would_be_gained() -> None:
    """A shift that the plan serves as well as any other."""
    assert decide(Options(5.0, 5.1, 5.1), (), NOW_S, Limits()).action is Action.HOLD


def test_decide_asks_twice_the_gain_when_a_flip_is_undone() -> None:
    """Within a while of the flip; later it is a flip like any other."""
    small = replace(GOOD, routed_rps=8.0, flipped_rps=8.6, during_rps=8.0)
    back = PastFlip(NOW_S - 100, "g1", Phase.PREFILL)
    assert decide(small, (back,), NOW_S, Limits()).action is not Action.FLIP
    assert decide(small, (replace(back, at_s=NOW_S - 1000),), NOW_S, Limits()).action is Action.FLIP
    assert decide(GOOD, (back,), NOW_S, Limits()).action is Action.FLIP


def test_decide_flips_no_more_often_than_is_allowed() -> None:
    """Within an hour; the reason says so."""
    limits = Limits(flips_per_hour=2)
    past = tuple(PastFlip(NOW_S - age_s, "g9", Phase.DECODE) for age_s in (3599.0, 10.0))
    refused = decide(GOOD, past, NOW_S, limits)
    assert refused.action is Action.ROUTES
    assert "2 flips within the hour; at most 2" in refused.reason
    assert decide(GOOD, past[1:], NOW_S, limits).action is Action.FLIP


def test_decide_takes_any_service_for_a_gain_when_there_is_none() -> None:
    """All decode groups are lost: whatever serves is worth a flip."""
    nothing = replace(GOOD, kept_rps=0.0, routed_rps=0.0, flipped_rps=1.0, during_rps=0.0)
    assert decide(nothing, (), NOW_S, Limits()).action is Action.FLIP


rates = st.floats(0.0, 100.0)


@given(rates, rates, rates, st.floats(0.0, 60.0), st.integers(0, 20))
def test_decide_never_flips_for_less_than_it_costs(
    routed: float, flipped: float, during: float, flipping_s: float, flips_before: int
) -> None:
    """Whatever the figures, a flip gains what is asked and stays within the hour's number."""
    limits = Limits()
    options = Options(routed, routed, flipped, (("g1", Phase.DECODE),), during, flipping_s)
    past = tuple(PastFlip(NOW_S - 1, "g2", Phase.DECODE) for _ in range(flips_before))
    if decide(options, past, NOW_S, limits).action is Action.FLIP:
        assert (flipped - routed) * limits.horizon_s > options.cost_requests
        assert flips_before < limits.flips_per_hour


def test_limits_refuse_nonsense() -> None:
    """The error names the setting."""
    with pytest.raises(InvalidArgumentError, match="flips_per_hour"):
        Limits(flips_per_hour=-1)
