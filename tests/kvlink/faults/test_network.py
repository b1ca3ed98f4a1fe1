"""K1, K2, K3: a network that cuts, flips, slows down and slices, at any byte of a transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fault_arena import Arena, batches
from fault_proxy import Cut, Direction, Fault

from thunderserve.core.request import WireMode

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]
MakeFaults = Callable[[Direction, WireMode, int], Iterator[Fault]]
MODES = (WireMode.RAW16, WireMode.INT4)
HEADER_BYTES = 60
# PAGES of 12 tokens, AUX, END; forth. COMMITTED; back.
FORTH_BYTES = {
    WireMode.RAW16: 3 * HEADER_BYTES + 768 + 11,
    WireMode.INT4: 3 * HEADER_BYTES + 384 + 11,
}
BACK_BYTES = HEADER_BYTES
EVERY = pytest.param(1, marks=pytest.mark.sweep, id="every")
SAMPLE = pytest.param(199, id="sample")  # prime to the sizes of all parts


def cuts(direction: Direction, mode: WireMode, step: int) -> Iterator[Fault]:
    size = FORTH_BYTES[mode] if direction is Direction.FORTH else BACK_BYTES
    for cut in (Cut.RST, Cut.FIN):
        for at_byte in _places(size, step):
            yield Fault(cut, at_byte, direction=direction)


def flips(direction: Direction, mode: WireMode, step: int) -> Iterator[Fault]:
    size = FORTH_BYTES[mode] if direction is Direction.FORTH else BACK_BYTES
    for bit in range(0, 8 * size, 2 * step - 1):
        yield Fault(flip_bit=bit, direction=direction)


def _places(size: int, step: int) -> list[int]:
    """Every `step`-th offset, and those where something begins or ends."""
    edges = {0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, size - 1}
    return sorted(place for place in edges | set(range(0, size, step)) if place < size)


@pytest.mark.parametrize("step", [SAMPLE, EVERY])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("make_faults", [cuts, flips])
async def test_transfer_fails_by_name_when_the_network_fails(
    arena: Arena, make_faults: MakeFaults, direction: Direction, mode: WireMode, step: int
) -> None:
    """K1, K3: reset, closed, or a bit flipped at any byte of a header, payload, scale, checksum.

    A decode side that had everything keeps it, though prefill never hears.
    """
    for batch in batches(make_faults(direction, mode, step)):
        for outcome in await arena.suffer(batch, mode):
            assert outcome.prefill != "committed", outcome
            assert (outcome.decode == "committed") is (direction is Direction.BACK), outcome
    await arena.check_well()
