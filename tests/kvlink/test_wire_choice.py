"""auto takes what finishes first, keeps to the floor, and does not dither."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunderserve.core.hardware import GIGABIT_PER_S
from thunderserve.core.request import WireMode
from thunderserve.kvlink.measuring import choose_mode
from thunderserve.kvlink.measuring.choice import Speed, finish_s

INT4, RAW16 = WireMode.INT4, WireMode.RAW16
CACHE_BYTES = 256 << 20
# A core with AVX-512, one with numpy alone, and checksums as zlib computes them.
COMPILED = {INT4: Speed(4e9, 4e9), RAW16: Speed(1.5e9, 1.5e9)}
NUMPY = {INT4: Speed(0.5e9, 0.8e9), RAW16: Speed(1.5e9, 1.5e9)}
FREE_CHECKSUMS = {INT4: Speed(4e9, 4e9), RAW16: Speed()}
speeds = st.builds(Speed, st.floats(1e7, 1e12), st.floats(1e7, 1e12))


@pytest.mark.parametrize("gbit", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("rates", [COMPILED, FREE_CHECKSUMS])
def test_int4_is_chosen_when_the_link_is_slow(gbit: float, rates: dict[WireMode, Speed]) -> None:
    choice = choose_mode(CACHE_BYTES, gbit * GIGABIT_PER_S, rates)
    assert choice.mode is INT4
    assert choice.reason.endswith(f"x as fast as raw16 on {gbit:.3g} Gbit/s")


@pytest.mark.parametrize(
    ("gbit", "rates", "mode"),
    [
        (10.0, NUMPY, RAW16),
        (10.0, COMPILED, INT4),
        (25.0, FREE_CHECKSUMS, INT4),
        (100.0, COMPILED, INT4),  # its checksum is of a quarter of the bytes
        (100.0, FREE_CHECKSUMS, RAW16),
        (100.0, NUMPY, RAW16),
    ],
)
def test_fast_links_do_not_pay_for_quantizing_when_it_is_the_slowest_stage(
    gbit: float, rates: dict[WireMode, Speed], mode: WireMode
) -> None:
    assert choose_mode(CACHE_BYTES, gbit * GIGABIT_PER_S, rates).mode is mode


@given(st.integers(1, 1 << 36), st.floats(1e5, 1e12), speeds, speeds)
def test_choice_finishes_first(
    raw_bytes: int, link_bytes_per_s: float, fine: Speed, coarse: Speed
) -> None:
    """Of the modes there are, none is sooner than the one that is chosen."""
    rates = {RAW16: fine, INT4: coarse}
    chosen = choose_mode(raw_bytes, link_bytes_per_s, rates).mode
    times = {mode: finish_s(raw_bytes, mode, link_bytes_per_s, rates[mode]) for mode in rates}
    assert times[chosen] == min(times.values())


@given(st.floats(1e5, 1e12), speeds, speeds, st.sampled_from([None, INT4, RAW16]))
def test_choice_keeps_to_the_floor(
    link_bytes_per_s: float, fine: Speed, coarse: Speed, previous: WireMode | None
) -> None:
    """Nothing coarser than the operator allows, whatever was chosen before."""
    rates = {RAW16: fine, INT4: coarse}
    choice = choose_mode(CACHE_BYTES, link_bytes_per_s, rates, coarsest=RAW16, previous=previous)
    assert choice.mode is RAW16
    assert choice.reason == "nothing coarser is allowed"


def test_choice_stays_when_another_mode_is_hardly_faster() -> None:
    """Around the rate where both take as long, noise changes nothing."""
    rates = {INT4: Speed(1e9, 1e9), RAW16: Speed()}
    near = [1e9 * factor for factor in (0.95, 1.0, 1.05)]
    for previous in (INT4, RAW16):
        chosen = [choose_mode(CACHE_BYTES, link, rates, previous=previous).mode for link in near]
        assert chosen == [previous] * 3
    assert choose_mode(CACHE_BYTES, 2e9, rates, previous=INT4).mode is RAW16


def test_choice_takes_an_unknown_link_for_an_ordinary_one() -> None:
    """The first transfer to a peer goes small, and the report says why."""
    choice = choose_mode(CACHE_BYTES, 0.0, COMPILED)
    assert choice.mode is INT4
    assert choice.reason.endswith("on a link that is not measured yet")


def test_finish_is_the_slowest_stage_and_one_frame_of_the_others() -> None:
    """As a pipeline of frames of 4 MiB goes."""
    seconds = finish_s(CACHE_BYTES, RAW16, 1e9, Speed(2e9, math.inf))
    assert seconds == pytest.approx(CACHE_BYTES / 1e9 + (4 << 20) / 2e9)
