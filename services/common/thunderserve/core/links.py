"""Links between groups as sidecars measure them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.request import WireMode

__all__ = ["LinkMeasurement", "LinkMethod", "MeasuredLink", "changed_materially"]

_MATERIAL_RATIO = 0.1


class LinkMethod(StrEnum):
    """How a link's rate was found."""

    TRAFFIC = "traffic"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkMeasurement:
    """The way from one kvlink sidecar to another, as the sending one measured it.

    Attributes:
        peer_address: `host:port` of the other sidecar.
        bytes_per_s: Delivered while there was something to deliver, > 0.
        rtt_s: Least round trip lately; 0 when unknown.
        retransmit_ratio: Of the bytes sent, the share that was sent again.
        age_s: Since the rate was measured.
        wire_mode: How the last transfer that was left to the sidecar travelled; `DEFAULT` before
            the first.
        wire_reason: Why, for people.
    """

    peer_address: str
    bytes_per_s: float
    rtt_s: float
    retransmit_ratio: float
    age_s: float
    method: LinkMethod
    wire_mode: WireMode = WireMode.DEFAULT
    wire_reason: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bytes_per_s) and self.bytes_per_s > 0):
            raise InvalidArgumentError(
                f"link to {self.peer_address}: bytes_per_s is {self.bytes_per_s}; it must be > 0",
                param="bytes_per_s",
            )
        for name in ("rtt_s", "retransmit_ratio", "age_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InvalidArgumentError(
                    f"link to {self.peer_address}: {name} is {value}; it must be >= 0", param=name
                )


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """A measured way between two groups, one direction."""

    from_group: str
    to_group: str
    from_node: str
    to_node: str
    measurement: LinkMeasurement


def changed_materially(
    before: tuple[LinkMeasurement, ...], after: tuple[LinkMeasurement, ...]
) -> bool:
    """True when a plan might be made differently: a link came or went, or its rate moved a tenth.

    Rates and ages change with every transfer; what is stored and planned by need not.
    """
    old = {link.peer_address: link for link in before}
    new = {link.peer_address: link for link in after}
    if old.keys() != new.keys():
        return True
    return any(
        abs(new[peer].bytes_per_s / link.bytes_per_s - 1) > _MATERIAL_RATIO
        or (new[peer].method, new[peer].wire_mode) != (link.method, link.wire_mode)
        for peer, link in old.items()
    )
