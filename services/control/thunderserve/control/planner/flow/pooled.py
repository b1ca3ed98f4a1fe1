"""A layout's flow, with one station for all groups that nothing tells apart.

Copies of a block are alike, so some best flow treats them alike: their groups are one station of
their capacity together, and their ports one port. Averaging a flow over the copies shows that
nothing is lost; a cluster of a thousand GPUs is then no more rows than it has different blocks.

Source: the same symmetry that `symmetry` finds in a flow problem, known here before it is posed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.flow.evaluate import Seat
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.flow.evaluate import Evaluator
    from thunderserve.control.planner.flow.flow import FlowProblem, Pair, Station

__all__ = ["Copies", "Held", "pooled_problem", "renamed"]

Held = tuple[Phase, "Design"]
"""A group: its phase and how it holds the model."""

_WAYS = ("out", "in")


@dataclass(frozen=True, slots=True)
class Copies:
    """Alike blocks.

    Attributes:
        held: Groups of one of them, on the nodes of the first.
        count: How many blocks.
        others: The nodes of the second one, by those of the first; empty when there is one.
    """

    held: tuple[Held, ...]
    count: int
    others: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Class:
    """Groups that nothing tells apart.

    Attributes:
        here: One on the first copy.
        there: One on the second; None when there is one copy.
        family: Place of its copies.
    """

    here: Seat
    there: Seat | None
    family: int
    count: int


def pooled_problem(evaluator: Evaluator, copies: Sequence[Copies]) -> FlowProblem:
    """What the flow is asked of all copies' groups; `gi` is the ith kind of group in order."""
    classes: list[_Class] = []
    for family, one in enumerate(copies):
        for (phase, design), number in Counter(one.held).items():
            here = Seat(f"g{len(classes)}", phase, design)
            there = replace(here, design=renamed(design, one.others)) if one.others else None
            classes.append(_Class(here, there, family, number * one.count))
    posed = evaluator.flow_problem(())
    return replace(
        posed,
        stations=tuple(_station(evaluator, each) for each in classes),
        pairs=tuple(_pairs(evaluator, classes, _first_ports(copies))),
        ports=_pooled_ports(posed.ports, copies),
    )


def renamed(design: Design, nodes: Mapping[str, str]) -> Design:
    """The design on other nodes."""
    stages = (replace(stage, node=nodes[stage.node]) for stage in design.stages)
    return replace(design, stages=tuple(stages))


def _first_ports(copies: Sequence[Copies]) -> dict[str, str]:
    """Ports of second copies, by name, and the pools that they belong to."""
    pairs = [pair for one in copies for pair in one.others.items()]
    return {f"{there} {way}": f"{here} {way}" for here, there in pairs for way in _WAYS}


def _pooled_ports(ports: Mapping[str, float], copies: Sequence[Copies]) -> dict[str, float]:
    """The first copies' ports, each of them for all copies."""
    pooled = dict(ports)
    for one in copies:
        for node in {node for _, design in one.held for node in design.nodes}:
            for way in _WAYS:
                pooled[f"{node} {way}"] *= one.count
    return pooled


def _station(evaluator: Evaluator, each: _Class) -> Station:
    """All its groups at once: each has its share of the load, and loses as it did."""
    one = evaluator.station(each.here)
    losses = tuple((slope, each.count * offset) for slope, offset in one.losses)
    return replace(one, capacity_rps=each.count * one.capacity_rps, losses=losses)


def _pairs(
    evaluator: Evaluator, classes: Sequence[_Class], first_ports: Mapping[str, str]
) -> Iterator[Pair]:
    for each in classes:
        if each.here.phase is Phase.COLOCATED:
            yield evaluator.pair(each.here, each.here)
    for one in (each for each in classes if each.here.phase is Phase.PREFILL):
        for other in (each for each in classes if each.here.phase is Phase.DECODE):
            tp = (one.here.design.tp, other.here.design.tp)
            pp = (one.here.design.pp, other.here.design.pp)
            if evaluator.problem.engine.can_transfer(tp=tp, pp=pp):
                yield evaluator.pair(one.here, other.here)
                if one.family == other.family and other.there is not None:
                    made = evaluator.pair(one.here, other.there)
                    sent = tuple((first_ports.get(port, port), much) for port, much in made.bytes)
                    yield replace(made, bytes=sent)
