"""What sidecars measured of the network, as links and ports of a live cluster."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.core.cost import Efficiency
from thunderserve.core.hardware import Link
from thunderserve.core.links import LinkMethod

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from thunderserve.core.hardware import Cluster, Node
    from thunderserve.core.links import LinkMeasurement, MeasuredLink

__all__ = ["with_measured_links"]

_Way = tuple[str, str]


def with_measured_links(
    cluster: Cluster,
    measured: Sequence[MeasuredLink],
    efficiency: Efficiency = Efficiency(),  # noqa: B008 - immutable
) -> Cluster:
    """The cluster with what was measured instead of what was assumed.

    A pair of nodes of which nothing was measured keeps the slower of its two ports. A node's port
    is as fast as its fastest link; while some of its links are unmeasured, at least what was
    assumed.

    Args:
        cluster: Its ports are assumed.
        measured: Between any groups; those within a node, or of other nodes, are left out.
        efficiency: Measured bytes arrived, a link's are nominal: `link_ratio` of them arrive.
    """
    ids = {node.id for node in cluster.nodes}
    by_way: dict[_Way, list[LinkMeasurement]] = defaultdict(list)
    for link in measured:
        if link.from_node != link.to_node and {link.from_node, link.to_node} <= ids:
            by_way[link.from_node, link.to_node].append(link.measurement)
    ways = {way: _way_of(found, efficiency.link_ratio) for way, found in by_way.items()}
    links = _pairs(ways)
    nodes = tuple(_with_port(node, links, others=len(ids) - 1) for node in cluster.nodes)
    kept = tuple(each for each in cluster.links if _pair(*each[:2]) not in links)
    new = tuple((first, second, link) for (first, second), link in links.items())
    return replace(cluster, nodes=nodes, links=kept + new)


def _way_of(found: Sequence[LinkMeasurement], link_ratio: float) -> Link:
    """One direction between two nodes, from several groups' sidecars.

    Traffic fills a link as a probe of a few megabytes cannot, so it counts first. Groups of one
    node share its port: the fastest saw the most of it.
    """
    traffic = [each for each in found if each.method is LinkMethod.TRAFFIC]
    best = max(traffic or found, key=lambda each: each.bytes_per_s)
    rtts = [each.rtt_s for each in found if each.rtt_s > 0]
    return Link(best.bytes_per_s / link_ratio, min(rtts, default=0.0) / 2)


def _pairs(ways: Mapping[_Way, Link]) -> dict[_Way, Link]:
    """Both directions of a pair of nodes, whose ids are in order: the slower one."""
    pairs: dict[_Way, Link] = {}
    for way, link in ways.items():
        pair = _pair(*way)
        pairs[pair] = _slower((link, pairs.get(pair, link)))
    return pairs


def _pair(first: str, second: str) -> _Way:
    return (first, second) if first < second else (second, first)


def _slower(links: Iterable[Link]) -> Link:
    return min(links, key=lambda link: link.bytes_per_s)


def _with_port(node: Node, links: Mapping[_Way, Link], *, others: int) -> Node:
    mine = [link.bytes_per_s for pair, link in links.items() if node.id in pair]
    if not mine:
        return node
    assumed = [] if len(mine) == others else [node.network.bytes_per_s]
    return replace(node, network=replace(node.network, bytes_per_s=max(mine + assumed)))
