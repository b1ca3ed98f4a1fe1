"""K1, K3 on the wire itself: ciphertext and handshakes cut and changed at any byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from fault_arena import batches, close_arena, open_arena
from fault_proxy import Cut, Direction, Fault

from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fault_arena import Arena

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]
# Handshake behind its first message, and a transfer; a certificate's length varies a little.
MOST_BYTES = 3000
EVERY = pytest.param(1, marks=pytest.mark.sweep, id="every")
SAMPLE = pytest.param(311, id="sample")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    arena = await open_arena(tmp_path_factory.mktemp("wire"), below_tls=True)
    yield arena
    await close_arena(arena)


def faults(step: int) -> Iterator[Fault]:
    for direction in Direction:
        for at_byte in range(0, MOST_BYTES, step):
            for cut in (Cut.RST, Cut.FIN):
                yield Fault(cut, at_byte, direction=direction)
            yield Fault(flip_bit=8 * at_byte + at_byte % 8, direction=direction)


@pytest.mark.parametrize("step", [SAMPLE, EVERY])
async def test_transfer_is_exact_or_fails_by_name_when_ciphertext_is_cut_or_changed(
    wire: Arena, step: int
) -> None:
    """TLS sees every change; what it says reaches both engines as the room's failure."""
    ended = []
    for batch in batches(faults(step)):
        ended += await wire.suffer(batch, WireMode.RAW16)
    assert any(outcome.prefill != "committed" for outcome in ended)
    await wire.check_well()
