"""KV over links of known speed: real sidecars, and engines that speak the engines' protocol.

iperf3 fills the same link in the same run. What it reaches is also the most bf16 bytes that any
transfer of raw values could deliver, SGLang's own among them.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from thunderserve.cli.bench.decode import Delivery
from thunderserve.cli.bench.links import link_named
from thunderserve.cli.bench.namespaces import DECODE_HOST, Namespace, Workshop, build_link
from thunderserve.cli.bench.pair import start_pair
from thunderserve.cli.bench.prefill import is_ready_room
from thunderserve.cli.supervisor import Supervisor
from thunderserve.core.errors import UnavailableError
from thunderserve.core.kv import KvLayout
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from thunderserve.cli.bench.links import BenchLink
    from thunderserve.cli.bench.pair import Sending

__all__ = ["LinkRates", "hidden_ratio", "link_figures", "measure_hiding", "measure_link"]

# Eight layers of a Llama 8B: 32 KB a token.
_LAYOUT = KvLayout("kvlink-bench", 8, 8, 128, 16, "bfloat16")
_IN_FLIGHT = 4
_HIDING_LINK, _HIDING_TOKENS = "1gbit", 1920
_IPERF3_TRIES, _IPERF3_WAIT_S = 50, 0.1


@dataclass(frozen=True, slots=True)
class LinkRates:
    """One run over one link."""

    iperf3_bytes_per_s: float
    raw16: Delivery
    int4: Delivery


def link_figures(name: str, rates: LinkRates) -> dict[str, float]:
    """Ratios, and what they are ratios of; each with the link's name behind."""
    iperf3, raw16, int4 = rates.iperf3_bytes_per_s, rates.raw16, rates.int4
    return {
        f"wire_x_iperf3_{name}": int4.wire_bytes_per_s / iperf3,
        f"wire_raw16_x_iperf3_{name}": raw16.wire_bytes_per_s / iperf3,
        f"delivered_x_raw16_{name}": int4.raw_bytes_per_s / raw16.raw_bytes_per_s,
        f"delivered_x_bf16_at_iperf3_{name}": int4.raw_bytes_per_s / iperf3,
        f"iperf3_gbit_per_s_{name}": iperf3 * 8 / 1e9,
        f"delivered_gbit_per_s_{name}": int4.raw_bytes_per_s * 8 / 1e9,
    }


async def measure_link(link: BenchLink, seconds: float) -> LinkRates:
    """What iperf3, raw16 and int4 reach over `link`.

    Raises:
        UnavailableError: The link or iperf3 cannot be had here; says what to do.
    """
    async with _built(link) as (workshop, ends, folder):
        iperf3 = await _iperf3(workshop, ends, seconds)
        pair = await start_pair(workshop, ends, folder, _LAYOUT)
        await pair.fetch(WireMode.INT4, link.room_tokens, least_rooms=_IN_FLIGHT)
        raw16, int4 = [
            await pair.fetch(mode, link.room_tokens, seconds=seconds, in_flight=_IN_FLIGHT)
            for mode in (WireMode.RAW16, WireMode.INT4)
        ]
    return LinkRates(iperf3, raw16, int4)


async def measure_hiding(layout: KvLayout, prompts: int) -> dict[str, float]:
    """How much of a transfer hides behind the demo model's prefill, layer by layer, at 1 Gbit/s.

    Raises:
        UnavailableError: The link cannot be had here.
    """
    async with _built(link_named(_HIDING_LINK)) as (workshop, ends, folder):
        pair = await start_pair(workshop, ends, folder, layout, model=True)
        await pair.fetch(WireMode.INT4, _HIDING_TOKENS, least_rooms=2)
        warm = len(pair.sendings())
        await pair.fetch(WireMode.INT4, _HIDING_TOKENS, least_rooms=2 * prompts)
        return hidden_ratio(pair.sendings()[warm:])


def hidden_ratio(sendings: Sequence[Sending]) -> dict[str, float]:
    """The share of a transfer that is over when prefill is.

    What is exposed of a room that is sent while it is computed, over what the transfer of an equal
    room takes that was computed before; medians.
    """
    alone_s = median(s.sending_s for s in sendings if is_ready_room(s.room))
    exposed_s = median(s.exposed_s for s in sendings if not is_ready_room(s.room))
    return {
        "hidden_transfer_ratio": 1 - exposed_s / alone_s,
        "transfer_alone_ms": alone_s * 1e3,
        "transfer_exposed_ms": exposed_s * 1e3,
    }


@asynccontextmanager
async def _built(
    link: BenchLink,
) -> AsyncIterator[tuple[Workshop, tuple[Namespace, Namespace], Path]]:
    """The link and a folder; everything is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kvlink-link-") as folder:
        async with Supervisor(Path(folder)) as supervisor:
            workshop = Workshop(supervisor)
            yield workshop, await build_link(workshop, link), Path(folder)


async def _iperf3(workshop: Workshop, ends: tuple[Namespace, Namespace], seconds: float) -> float:
    """Bytes a second that arrive: the better of one TCP connection and several."""
    if shutil.which("iperf3") is None:
        raise UnavailableError("iperf3 is not installed: apt-get install iperf3")
    prefill, decode = ends
    await workshop.start("iperf3-server", *decode.command("iperf3", "--server"))
    time_s = str(max(1, round(seconds)))
    warm_s = "1" if seconds >= 1 else "0"
    client = ("iperf3", "--json", "--client", DECODE_HOST, "--time", time_s, "--omit", warm_s)
    return max(
        [
            await _iperf3_client(workshop, prefill.command(*client, "--parallel", str(number)))
            for number in (1, _IN_FLIGHT)
        ]
    )


async def _iperf3_client(workshop: Workshop, command: tuple[str, ...]) -> float:
    for _ in range(_IPERF3_TRIES):
        output = await workshop.run("iperf3", *command, ok=(0, 1))
        result = json.loads(output)
        if "error" not in result:
            return float(result["end"]["sum_received"]["bits_per_second"]) / 8
        await asyncio.sleep(_IPERF3_WAIT_S)  # the server is not there yet
    raise UnavailableError(f"iperf3: {result['error']}")
