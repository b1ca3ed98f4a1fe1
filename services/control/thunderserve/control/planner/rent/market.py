"""Offers as a cluster: what could be rented, were there no budget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.core.hardware import Cluster, Link, Node
from thunderserve.core.plan import Gpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from thunderserve.control.planner.rent.offers import Offer

__all__ = ["cluster_of", "usd_per_byte"]

INTERNET_LATENCY_S = 0.02
"""Between two hosts. An offer does not tell: measure it before routes are trusted."""

_LOCAL_LATENCY_S = 1e-5


def cluster_of(offers: Sequence[Offer], rented: Mapping[str, int] | None = None) -> Cluster:
    """The offers' hosts, each a node named by its offer.

    A port's one rate is the slower of a host's two directions.

    Args:
        offers: What there is.
        rented: How many GPUs of each offer; all of all, when left out.
    """
    taken = {offer.id: offer.gpus for offer in offers} if rented is None else rented
    nodes = tuple(_node(offer, taken[offer.id]) for offer in offers if taken.get(offer.id))
    types = {offer.gpu.name: replace(offer.gpu, usd_per_hour=0.0) for offer in offers}
    return Cluster(nodes, tuple(types.values()))


def _node(offer: Offer, gpus: int) -> Node:
    return Node(
        offer.id,
        tuple(Gpu(f"{offer.id}/{index}", offer.gpu.name) for index in range(gpus)),
        Link(offer.local_bytes_per_s, _LOCAL_LATENCY_S),
        Link(min(offer.up_bytes_per_s, offer.down_bytes_per_s), INTERNET_LATENCY_S),
    )


def usd_per_byte(offers: Iterable[Offer]) -> dict[str, float]:
    """What a byte costs at every port of the cluster."""
    return {
        f"{offer.id} {way}": price
        for offer in offers
        for way, price in (("out", offer.up_usd_per_byte), ("in", offer.down_usd_per_byte))
    }
