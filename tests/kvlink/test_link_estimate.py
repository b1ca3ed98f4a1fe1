"""The estimator follows what lasts and ignores what passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.kvlink.measuring import LinkEstimate, Window
from thunderserve.kvlink.measuring.meter import window_between
from thunderserve.kvlink.measuring.tcp_info import TcpInfo

LOOK_S = 0.02


def after(estimate: LinkEstimate, bytes_per_s: float, busy_s: float) -> LinkEstimate:
    """The estimate after steady traffic of that rate."""
    for _ in range(round(busy_s / LOOK_S)):
        estimate = estimate.add(Window(int(bytes_per_s * LOOK_S), LOOK_S), 1.0)
    return estimate


@given(st.floats(1e5, 1e11))
def test_estimate_is_the_rate_when_traffic_is_steady(bytes_per_s: float) -> None:
    assert after(LinkEstimate(), bytes_per_s, 1.0).bytes_per_s == pytest.approx(
        bytes_per_s, rel=0.01
    )


@given(st.floats(1e6, 1e10), st.floats(0.01, 100.0))
def test_estimate_follows_a_change_when_it_lasts_a_second(before: float, factor: float) -> None:
    """A second of traffic at the new rate is enough, whichever way it changed."""
    seen = after(after(LinkEstimate(), before, 2.0), before * factor, 1.0)
    assert seen.bytes_per_s == pytest.approx(before * factor, rel=0.1)


@given(st.floats(1e6, 1e9), st.floats(0.0, 1000.0))
def test_estimate_stays_when_one_segment_is_a_burst_or_a_stall(
    bytes_per_s: float, factor: float
) -> None:
    """One tenth of a second of anything moves nothing."""
    known = after(LinkEstimate(), bytes_per_s, 2.0)
    passed = after(known, bytes_per_s * factor, 0.1)
    assert passed.bytes_per_s == pytest.approx(bytes_per_s, rel=0.02)


def test_estimate_stays_when_nothing_comes_through_for_long() -> None:
    """An outage says nothing of the link's rate once it is back."""
    known = after(LinkEstimate(), 1e8, 2.0)
    assert after(known, 0.0, 60.0).bytes_per_s == known.bytes_per_s


def test_estimate_ignores_windows_when_there_was_little_to_send() -> None:
    """Small messages wait for round trips, not for the link; much at once shows it is faster."""
    known = after(LinkEstimate(), 1e8, 2.0)
    trickle = Window(20_000, LOOK_S, short_of_data=True)
    burst = Window(4_000_000, 0.01, short_of_data=True)
    for _ in range(100):
        known = known.add(trickle, 2.0)
    assert known.bytes_per_s == pytest.approx(1e8, rel=0.01)
    for _ in range(100):
        known = known.add(burst, 3.0)
    assert known.bytes_per_s == pytest.approx(4e8, rel=0.01)


def test_estimate_takes_longer_segments_when_the_round_trip_is_long() -> None:
    """Over a long way a tenth of a second may hold no acknowledgement at all."""
    seen = LinkEstimate().add(Window(10**7, 0.5, rtt_s=0.2), 1.0)
    assert not seen.known
    assert seen.add(Window(10**7, 0.5, rtt_s=0.2), 1.0).bytes_per_s == pytest.approx(2e7)


def test_retransmit_ratio_is_of_what_was_sent_lately() -> None:
    """A bad minute is forgotten after good ones."""
    seen = LinkEstimate()
    for _ in range(20):
        seen = seen.add(Window(900, 0.1, sent_bytes=1000, repeated_bytes=100), 1.0)
    assert seen.retransmit_ratio == pytest.approx(0.1)
    for _ in range(40):
        seen = seen.add(Window(1000, 0.1, sent_bytes=1000), 2.0)
    assert seen.retransmit_ratio < 0.01


@pytest.mark.parametrize("values", [(-1, 0.1), (1, float("nan")), (1, -0.1)])
def test_window_refuses_values_that_no_kernel_counts(values: tuple[int, float]) -> None:
    with pytest.raises(InvalidArgumentError, match="negative or not finite"):
        Window(*values)


def counted(acked: int, busy_s: float, blocked_s: float = 0.0) -> TcpInfo:
    return TcpInfo(acked, acked, 0, busy_s, blocked_s, 0.001, short_of_data=False)


def test_window_leaves_out_waits_for_the_peers_engine() -> None:
    """A peer that has no room is slow itself; the link is not."""
    window = window_between([(counted(0, 1.0), counted(10**6, 1.02, 0.015))], LOOK_S)
    assert window is not None
    assert window.busy_s == pytest.approx(0.005)


def test_window_counts_connections_together_when_both_were_busy_all_the_time() -> None:
    """They share the link: their bytes add up, their time does not."""
    looks = [(counted(0, 0.0), counted(10**6, 0.02)), (counted(0, 0.0), counted(10**6, 0.019))]
    window = window_between(looks, LOOK_S)
    assert window is not None
    assert (window.acked_bytes, window.busy_s) == (2 * 10**6, pytest.approx(0.02))


def test_window_is_left_out_when_connections_may_have_taken_turns() -> None:
    """Half of the time each: at once or in turn, and the rate would differ by two."""
    looks = [(counted(0, 0.0), counted(10**6, 0.01)), (counted(0, 0.0), counted(10**6, 0.009))]
    assert window_between(looks, LOOK_S) is None
