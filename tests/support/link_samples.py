"""A link with traffic and one that was probed, as control lists them."""

from __future__ import annotations

from typing import Any

from thunderserve.api.control.v1 import control_pb2
from thunderserve.core.links import LinkMeasurement, LinkMethod, MeasuredLink
from thunderserve.core.request import WireMode
from thunderserve.wire.links import link_to_proto

_LINKS = (
    MeasuredLink(
        *("g0", "g1", "n0", "n1"),
        LinkMeasurement(
            peer_address="h:1",
            bytes_per_s=1.25e8,
            rtt_s=0.0102,
            retransmit_ratio=0.001,
            age_s=3.2,
            method=LinkMethod.TRAFFIC,
            wire_mode=WireMode.INT4,
            wire_reason="3.4x raw16",
        ),
    ),
    MeasuredLink(
        *("g0", "g2", "n0", "n2"),
        LinkMeasurement(
            peer_address="h:2",
            bytes_per_s=1e9,
            rtt_s=0.0,
            retransmit_ratio=0.0,
            age_s=90.0,
            method=LinkMethod.PROBE,
        ),
    ),
)


class ListsLinks:
    """That part of a fake control plane."""

    async def ListLinks(self, request: Any, context: Any) -> control_pb2.ListLinksResponse:
        """Both of them."""
        del request, context
        return control_pb2.ListLinksResponse(links=map(link_to_proto, _LINKS))
