"""The window keeps what was heard lately, by this process's clock."""

from __future__ import annotations

import pytest

from thunderserve.control.monitor.window import Window
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.finished import FinishedRequest, Outcome
from thunderserve.core.slo import Slo

SLO = Slo(ttft_s=1.0, tpot_s=0.1)


def request(
    ttft_s: float = 0.5, outcome: Outcome = Outcome.FINISHED, arrived_unix_s: float = 0.0
) -> FinishedRequest:
    return FinishedRequest(arrived_unix_s, 10, 10, ttft_s, 0.05, outcome)


def test_window_forgets_what_is_older_than_its_span() -> None:
    """And begins where it does."""
    window = Window(60.0)
    window.add([request()], 0.0)
    window.add([request(), request()], 50.0)

    assert len(window.view(59.0).observed) == 3
    later = window.view(70.0)
    assert [each.seen_s for each in later.observed] == [50.0, 50.0]
    assert (later.start_s, later.span_s) == (10.0, 60.0)


def test_window_spans_what_it_has_listened_for_when_it_began_lately() -> None:
    """A rate over time in which nobody listened would be too low."""
    window = Window(60.0)
    window.add([request()], 100.0)
    assert window.view(110.0).span_s == 10.0


def test_window_takes_no_notice_of_the_routers_clocks() -> None:
    """A router whose clock is an hour ahead, or jumps back, changes nothing."""
    window = Window(60.0)
    window.add([request(arrived_unix_s=1e9 + 3600), request(arrived_unix_s=0.0)], 5.0)
    assert len(window.view(6.0).observed) == 2


def test_window_is_empty_after_a_restart() -> None:
    """What was heard before a change of the fleet says nothing of what comes after."""
    window = Window(60.0)
    window.add([request()], 0.0)
    window.restart(10.0)
    view = window.view(20.0)
    assert (view.observed, view.span_s) == ((), 10.0)


def test_view_tells_the_share_in_time_of_those_that_ended() -> None:
    """A failed one is late, a cancelled one is neither."""
    window = Window(60.0)
    window.add([request(), request(ttft_s=2.0)], 0.0)
    window.add([request(outcome=Outcome.FAILED), request(outcome=Outcome.CANCELLED)], 0.0)

    assert window.view(1.0).attainment_ratio(SLO) == pytest.approx(1 / 3)
    assert window.view(1.0).failed_ratio == pytest.approx(1 / 4)
    assert Window(1.0).view(0.0).attainment_ratio(SLO) is None


def test_window_refuses_a_span_of_nothing() -> None:
    """The error names the setting."""
    with pytest.raises(InvalidArgumentError, match="span_s"):
        Window(0.0)


def test_view_leaves_out_arrivals_of_which_only_the_short_ones_have_ended() -> None:
    """Of a request that takes 10 s and one that takes 1 s, both from second 50, one is known."""
    window = Window(60.0)
    window.add([], 0.0)
    for arrived_s in range(0, 60, 2):
        for took_s in (1.0, 10.0):
            if arrived_s + took_s <= 60.0:
                window.add([request(ttft_s=took_s - 0.45)], arrived_s + took_s)

    ripe = window.view(60.0).ripe(0.9)

    assert ripe.end_s == pytest.approx(50.0)
    took = [round(each.request.e2e_s) for each in ripe.observed]
    assert took.count(1) == took.count(10) == 26
