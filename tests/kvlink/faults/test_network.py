"""K1, K2, K3: a network that cuts, flips, slows down and slices, at any byte of a transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fault_arena import Arena, batches
from fault_proxy import Cut, Direction, Fault

from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]
MODES = (WireMode.RAW16, WireMode.INT4)
HEADER_BYTES = 60
# PAGES of 12 tokens, AUX, END; forth. COMMITTED; back.
FORTH_BYTES = {
    WireMode.RAW16: 3 * HEADER_BYTES + 768 + 11,
    WireMode.INT4: 3 * HEADER_BYTES + 384 + 11,
}
BACK_BYTES = HEADER_BYTES
EVERY = pytest.param(1, marks=pytest.mark.sweep, id="every")
SAMPLE = pytest.param(47, id="sample")  # prime to the sizes of all parts


def cuts(mode: WireMode, step: int) -> Iterator[Fault]:
    for cut in (Cut.RST, Cut.FIN):
        for at_byte in _places(FORTH_BYTES[mode], step):
            yield Fault(cut, at_byte)
        for at_byte in _places(BACK_BYTES, step):
            yield Fault(cut, at_byte, direction=Direction.BACK)


def flips(mode: WireMode, step: int) -> Iterator[Fault]:
    for bit in range(0, 8 * FORTH_BYTES[mode], step):
        yield Fault(flip_bit=bit)
    for bit in range(0, 8 * BACK_BYTES, step):
        yield Fault(flip_bit=bit, direction=Direction.BACK)


def _places(size: int, step: int) -> list[int]:
    """Every `step`-th offset, and those where something begins or ends."""
    edges = {0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, size - 1}
    return sorted(place for place in edges | set(range(0, size, step)) if place < size)


@pytest.mark.parametrize("step", [SAMPLE, EVERY])
@pytest.mark.parametrize("mode", MODES)
async def test_transfer_fails_by_name_when_the_link_is_cut(
    arena: Arena, mode: WireMode, step: int
) -> None:
    """K1: reset or closed at any byte, forth and back."""
    for batch in batches(cuts(mode, step)):
        outcomes = await arena.suffer(batch, mode)
        for fault, outcome in zip(batch, outcomes, strict=True):
            # A decode side that had all of it keeps it, though prefill never hears.
            lost = fault.direction is Direction.FORTH
            assert (outcome.decode == "committed") is not lost, (fault, outcome)
    await arena.check_well()


@pytest.mark.parametrize("step", [SAMPLE, EVERY])
@pytest.mark.parametrize("mode", MODES)
async def test_transfer_fails_by_name_when_a_bit_is_flipped(
    arena: Arena, mode: WireMode, step: int
) -> None:
    """K3: in a header, a payload, its scales or a checksum."""
    for batch in batches(flips(mode, step)):
        for fault, outcome in zip(batch, await arena.suffer(batch, mode), strict=True):
            assert outcome.prefill != "committed", (fault, outcome)
            lost = fault.direction is Direction.FORTH
            assert (outcome.decode == "committed") is not lost, (fault, outcome)
    await arena.check_well()
