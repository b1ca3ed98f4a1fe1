"""What an assignment of groups to phases is worth: the best flow between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from thunderserve.control.planner.design import Design, transfer_shares
from thunderserve.control.planner.flow.flow import Flow, FlowProblem, Pair, Station
from thunderserve.control.planner.flow.orchestration import solve_flow
from thunderserve.control.planner.flow.shapes import Shapes
from thunderserve.control.planner.physics import Transfer
from thunderserve.control.planner.problem import Objective
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.problem import Problem

__all__ = ["Assessment", "Evaluator", "Seat"]

_Ends = tuple[tuple[Design, Phase], tuple[Design, Phase]]


@dataclass(frozen=True, slots=True)
class Seat:
    """A group: its id, its phase and how it holds the model."""

    id: str
    phase: Phase
    design: Design


@dataclass(frozen=True, slots=True)
class Assessment:
    """Groups, the flow between them and how it was posed.

    Attributes:
        chunk_tokens: Of prompts, that are computed and sent at a time.
    """

    seats: tuple[Seat, ...]
    problem: FlowProblem
    flow: Flow
    chunk_tokens: int

    @property
    def score(self) -> float:
        """What the search maximises."""
        return self.flow.score

    def load_rps(self, seat_id: str) -> float:
        """Requests per second through a group."""
        flows = zip(self.problem.pairs, self.flow.rps, strict=True)
        return sum(rps for pair, rps in flows if seat_id in pair.stations)


class Evaluator:
    """Evaluates groups of one problem; a move of the search costs what it changed, and one flow.

    Args:
        problem: The problem.
        chunk_tokens: Of prompts, that are computed and sent at a time; the first that the engine
            offers when left out.
    """

    def __init__(self, problem: Problem, chunk_tokens: int | None = None) -> None:
        self.problem = problem
        self.chunk_tokens = chunk_tokens or problem.engine.chunk_tokens[0]
        self.shapes = Shapes(problem, self.chunk_tokens)
        self.flows_solved = 0
        self._others: dict[int, Evaluator] = {}
        self._shares: dict[tuple[Design, Design], dict[tuple[str, str], float]] = {}
        # Attainment of idle groups and bytes per port of routes between designs, by both ends.
        self._routes: dict[_Ends, tuple[float, tuple[tuple[str, float], ...]]] = {}

    def assess(self, seats: Sequence[Seat]) -> Assessment:
        """The best flow between these groups."""
        posed = self.flow_problem(seats)
        return Assessment(tuple(seats), posed, self.solve(posed), self.chunk_tokens)

    def solve(self, posed: FlowProblem) -> Flow:
        """The best flow; how many were solved is counted."""
        self.flows_solved += 1
        return solve_flow(posed)

    def with_chunk(self, chunk_tokens: int) -> Evaluator:
        """The same for chunks of another size."""
        if chunk_tokens == self.chunk_tokens:
            return self
        if chunk_tokens not in self._others:
            self._others[chunk_tokens] = Evaluator(self.problem, chunk_tokens)
        return self._others[chunk_tokens]

    def assess_best_chunk(self, seats: Sequence[Seat]) -> Assessment:
        """The best flow over all sizes of chunks that the engine offers."""
        sizes = self.problem.engine.chunk_tokens
        return max(
            (self.with_chunk(size).assess(seats) for size in sizes), key=lambda found: found.score
        )

    def flow_problem(self, seats: Sequence[Seat]) -> FlowProblem:
        """What the flow between these groups is asked, unsolved."""
        aims_at_capacity = self.problem.objective is Objective.CAPACITY
        return FlowProblem(
            demand_rps=self.problem.workload.rate_rps,
            stations=tuple(self.station(seat) for seat in seats),
            pairs=tuple(self._pairs(seats)),
            ports=self.ports,
            target_ratio=self.problem.target_ratio if aims_at_capacity else None,
        )

    def transfer(self, prefill: Seat, decode: Seat) -> Transfer:
        """What moving a KV cache between two groups takes; nothing within a colocated one.

        Each pair of nodes moves its share at the same time; the slowest decides.
        """
        cluster = self.problem.cluster
        moves = [
            self.shapes.transfer(cluster.link(start, end), share)
            for (start, end), share in self._transfer_shares(prefill, decode).items()
        ]
        return max(moves, key=lambda move: move.s_per_token, default=Transfer())

    def station(self, seat: Seat) -> Station:
        """A group as the flow sees it."""
        known = self.shapes.station(seat.design, seat.phase)
        return Station(seat.id, known.phase, known.capacity_rps, known.losses)

    def _pairs(self, seats: Sequence[Seat]) -> list[Pair]:
        """Every route that the engine can serve."""
        pairs = [self.pair(seat, seat) for seat in seats if seat.phase is Phase.COLOCATED]
        for prefill in (seat for seat in seats if seat.phase is Phase.PREFILL):
            for decode in (seat for seat in seats if seat.phase is Phase.DECODE):
                tp = (prefill.design.tp, decode.design.tp)
                pp = (prefill.design.pp, decode.design.pp)
                if self.problem.engine.can_transfer(tp=tp, pp=pp):
                    pairs.append(self.pair(prefill, decode))
        return pairs

    def pair(self, prefill: Seat, decode: Seat) -> Pair:
        """A route between two groups, or within a colocated one."""
        ends = ((prefill.design, prefill.phase), (decode.design, decode.phase))
        if ends not in self._routes:
            ratio = self.shapes.pair_ratio(*ends, self.transfer(prefill, decode))
            self._routes[ends] = (ratio, self._sent_bytes(prefill, decode))
        return Pair(prefill.id, decode.id, *self._routes[ends])

    def _transfer_shares(self, prefill: Seat, decode: Seat) -> dict[tuple[str, str], float]:
        if prefill.phase is Phase.COLOCATED:
            return {}
        ends = (prefill.design, decode.design)
        if ends not in self._shares:
            self._shares[ends] = transfer_shares(*ends)
        return self._shares[ends]

    def _sent_bytes(self, prefill: Seat, decode: Seat) -> tuple[tuple[str, float], ...]:
        """What a mean request sends through every port on its way between nodes."""
        problem = self.problem
        each = kv_wire_bytes(problem.model, self.shapes.sample.mean_prompt, problem.wire_mode)
        sent: dict[str, float] = {}
        for (start, end), share in self._transfer_shares(prefill, decode).items():
            if start != end:
                for port in self._ways(start, end):
                    sent[port] = sent.get(port, 0.0) + share * each
        return tuple(sent.items())

    def _ways(self, start: str, end: str) -> list[str]:
        """What bytes between two nodes pass: both ports, and the link where it is the narrowest."""
        ports = [f"{start} out", f"{end} in"]
        link = f"{start} > {end}"
        return [*ports, link] if link in self.port_rates else ports

    @cached_property
    def ports(self) -> dict[str, float]:
        """What the flow may send per second through every port, so that transfers are in time."""
        return {
            port: rate * self.shapes.ports.ceiling(rate) for port, rate in self.port_rates.items()
        }

    @cached_property
    def port_rates(self) -> dict[str, float]:
        """Bytes per second of every port, and of each direction of links slower than their ports.

        A link that is no slower than both its ports bounds nothing that they do not.
        """
        cluster, ratio = self.problem.cluster, self.problem.efficiency.link_ratio
        rates = {node.id: node.network.bytes_per_s for node in cluster.nodes}
        ports = {
            f"{node} {way}": rate * ratio for node, rate in rates.items() for way in ("out", "in")
        }
        for first, second, link in cluster.links:
            if link.bytes_per_s < min(rates[first], rates[second]):
                for start, end in ((first, second), (second, first)):
                    ports[f"{start} > {end}"] = link.bytes_per_s * ratio
        return ports
