"""What a plan can be made of: every group that GPUs can form, and the lanes between groups.

A column is a kind of group: so many GPUs of each bin, holding the model in this way, in this phase;
a plan has so many copies of each. Nodes that are alike can be one site, described on its first
node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING

from thunderserve.control.planner.design import Design
from thunderserve.control.planner.flow import Evaluator, Seat, Station
from thunderserve.control.planner.search import Bins, Counts, Parallelism
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Column", "Lane", "Site", "Stock", "stock_of"]


@dataclass(frozen=True, slots=True)
class Site:
    """Nodes that nothing tells apart; or one node, where each is taken for itself.

    Attributes:
        bins: Places of its first node's bins among all bins.
        sizes: GPUs of each of these bins on one node.
    """

    nodes: tuple[str, ...]
    bins: tuple[int, ...]
    sizes: Counts


@dataclass(frozen=True, slots=True)
class Column:
    """A kind of group.

    Attributes:
        sites: Where its GPUs are.
        counts: How many it takes of each bin of the cluster.
        station: What it can do.
    """

    sites: tuple[int, ...]
    counts: Counts
    phase: Phase
    design: Design
    station: Station


@dataclass(frozen=True, slots=True)
class Lane:
    """A way for requests from copies of one column to copies of another, or within a copy.

    Attributes:
        bytes: What a request sends through each port; the ports of a site are one.
    """

    prefill: int
    decode: int
    attainment_ratio: float
    bytes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Stock:
    """All that a plan can be made of.

    Attributes:
        sizes: GPUs of every bin; those of a site's nodes together.
        ports: Bytes per second of every port; those of a site's nodes together.
    """

    sites: tuple[Site, ...]
    columns: tuple[Column, ...]
    lanes: tuple[Lane, ...]
    sizes: Counts
    ports: Mapping[str, float]


def stock_of(evaluator: Evaluator, *, pooled: bool) -> Stock:
    """Everything that plans of a problem can be made of.

    Args:
        evaluator: The problem's physics.
        pooled: Take alike nodes for one site. A bound that comes of it is true, though not always
            reached: ports are pooled, and a lane within a node may be used by groups that are not
            on the same one. Possible for groups that stay within a node only.
    """
    problem = evaluator.problem
    bins = Bins(problem.cluster)
    classes = bins.classes if pooled else [(node.id,) for node in problem.cluster.nodes]
    sites = [_site(nodes, bins) for nodes in classes]
    sizes = [0] * len(bins.all)
    for site in sites:
        for index, size in zip(site.bins, site.sizes, strict=True):
            sizes[index] = size * len(site.nodes)
    columns = list(_columns(evaluator, sites, bins))
    return Stock(
        tuple(sites),
        tuple(columns),
        tuple(_lanes(evaluator, sites, columns)),
        tuple(sizes),
        _ports(evaluator, sites),
    )


def _site(nodes: Sequence[str], bins: Bins) -> Site:
    first = tuple(bins.on_node(nodes[0]))
    return Site(tuple(nodes), first, tuple(bins.all[index].size for index in first))


def _homes(sites: Sequence[Site]) -> dict[str, str]:
    """The first node of every node's site."""
    return {node: site.nodes[0] for site in sites for node in site.nodes}


def _ports(evaluator: Evaluator, sites: Sequence[Site]) -> dict[str, float]:
    """Ports of a site's nodes carry together what each carries; a narrow link is its own."""
    homes = _homes(sites)
    pooled: dict[str, float] = {}
    for port, rate in evaluator.ports.items():
        name = _pooled(port, homes)
        pooled[name] = pooled.get(name, 0.0) + rate
    return pooled


def _pooled(port: str, homes: Mapping[str, str]) -> str:
    node, _, way = port.partition(" ")
    return f"{homes[node]} {way}"


def _columns(evaluator: Evaluator, sites: Sequence[Site], bins: Bins) -> Iterator[Column]:
    problem = evaluator.problem
    parallelism = Parallelism(problem, evaluator.shapes, bins)
    for number in range(1, min(problem.engine.max_nodes, len(sites)) + 1):
        for chosen in combinations(range(len(sites)), number):
            for counts in _counts([sites[index] for index in chosen], len(bins.all)):
                for design in dict.fromkeys(parallelism.designs(counts)):
                    for phase in problem.engine.phases:
                        station = evaluator.station(Seat("", phase, design))
                        if station.capacity_rps > 0:
                            yield Column(chosen, counts, phase, design, station)


def _counts(sites: Sequence[Site], width: int) -> Iterator[Counts]:
    """Numbers of GPUs, at least one on each of the sites' first nodes."""
    choices = [
        [taken for taken in product(*(range(size + 1) for size in site.sizes)) if any(taken)]
        for site in sites
    ]
    for chosen in product(*choices):
        counts = [0] * width
        for site, taken in zip(sites, chosen, strict=True):
            for index, number in zip(site.bins, taken, strict=True):
                counts[index] = number
        yield tuple(counts)


def _lanes(
    evaluator: Evaluator, sites: Sequence[Site], columns: Sequence[Column]
) -> Iterator[Lane]:
    """Every route that the engine can serve; between alike nodes too, where sites have several."""
    engine = evaluator.problem.engine
    places = {phase: [i for i, c in enumerate(columns) if c.phase is phase] for phase in Phase}
    second = {site.nodes[0]: site.nodes[1] for site in sites if len(site.nodes) > 1}
    homes = _homes(sites)
    for i in places[Phase.COLOCATED]:
        seat = _seat(columns[i])
        yield Lane(i, i, evaluator.pair(seat, seat).attainment_ratio)
    for i, j in product(places[Phase.PREFILL], places[Phase.DECODE]):
        first, later = columns[i], columns[j]
        degrees = (first.design.tp, later.design.tp), (first.design.pp, later.design.pp)
        if not engine.can_transfer(tp=degrees[0], pp=degrees[1]):
            continue
        moves: list[Mapping[str, str]] = [{}]
        if first.sites == later.sites and sites[first.sites[0]].nodes[0] in second:
            moves.append(second)
        for move in moves:
            pair = evaluator.pair(_seat(first), _seat(later, move))
            sent = tuple((_pooled(port, homes), each) for port, each in pair.bytes)
            yield Lane(i, j, pair.attainment_ratio, sent)


def _seat(column: Column, moved: Mapping[str, str] | None = None) -> Seat:
    """A copy of the column; on other nodes, where `moved` says so."""
    design = column.design
    if moved:
        stages = (replace(stage, node=moved[stage.node]) for stage in design.stages)
        design = Design(tuple(stages))
    return Seat("", column.phase, design)
