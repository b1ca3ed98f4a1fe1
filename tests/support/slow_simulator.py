"""The simulator's twin, written to be obvious: a process per group and port, every step a wait.

It shares the cost model, the draw of routes and the assumptions with the simulator, and none of
what is checked: no closed forms, no events that are taken back. Every request must fit.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from slow_state import Asked, Piece, Place, work_of
from slow_world import Chunk, Port, Process, World, enter_next_port, serve_port

from thunderserve.control.planner.design import design_of, replica_of, transfer_shares
from thunderserve.control.planner.simulator import ColocatedBatching, Reservation, ServingPolicy
from thunderserve.core.chairman import Claimant, choose
from thunderserve.core.cost import Replica, Work
from thunderserve.core.hardware import Link
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.trace import Trace


class SlowSimulator:
    """Serves a trace with a plan; then `asked` says what became of each request."""

    def __init__(self, plan: Plan, problem: Problem, policy: ServingPolicy) -> None:
        self.world = World()
        self.plan, self.problem, self.policy, self.cost = plan, problem, policy, problem.cost
        self.chunk = plan.chunk_tokens or problem.engine.chunk_tokens[0]
        self.ports: dict[tuple[str, str], Port] = {}
        self.asked: list[Asked] = []
        self.places: dict[str, Place] = {}
        run = {
            Phase.PREFILL: self._prefill,
            Phase.DECODE: self._decode,
            Phase.COLOCATED: self._colocated,
        }
        for group in plan.groups:
            replica = replica_of(design_of(group), problem.cluster)
            beside = 0 if group.phase is Phase.DECODE else self.chunk
            capacity = max(0, int(self.cost.kv_capacity_tokens(replica, beside)))
            place = self.places[group.id] = Place(group, replica, capacity)
            self.world.spawn(run[group.phase](place))

    def serve(self, trace: Trace) -> None:
        claimants = [Claimant((r.prefill, r.decode), r.weight) for r in self.plan.routes]
        for request in trace.requests:
            first, later = choose([c for c in claimants if c.weight > 0]).ends
            asked = Asked(request, self.places[first], self.places[later])
            self.asked.append(asked)
            self.world.spawn(self._arrive(asked))
        self.world.run()

    def _arrive(self, asked: Asked) -> Process:
        yield asked.request.arrival_s
        early = self.policy.reservation is Reservation.BEFORE_PREFILL
        if early and asked.prefill is not asked.decode:
            asked.decode.unreserved.append(asked)
            self._grant(asked.decode)
        else:
            self._queue(asked)

    def _queue(self, asked: Asked) -> None:
        asked.prefill.queue.append(asked)
        self.world.ring(asked.prefill.bell)

    def _grant(self, decode: Place) -> None:
        while decode.unreserved and decode.take(decode.unreserved[0].total):
            asked = decode.unreserved.pop(0)
            asked.reserved = True
            if self.policy.reservation is Reservation.BEFORE_PREFILL:
                self._queue(asked)
            else:
                self._send(asked)

    # Prefill.

    def _pieces(
        self, place: Place, budget: int, admit: Callable[[Asked], bool], *, whole: bool = False
    ) -> list[Piece]:
        pieces: list[Piece] = []
        while place.queue and budget > 0:
            asked = place.queue[0]
            left = asked.request.prompt_tokens - asked.started
            if (whole and pieces and left > budget) or (asked.started == 0 and not admit(asked)):
                break
            tokens = left if whole else min(left, budget)
            pieces.append(Piece(asked, tokens, asked.started))
            asked.started += tokens
            budget -= tokens
            if tokens == left:
                place.queue.pop(0)
        return pieces

    def _prefill(self, place: Place) -> Process:
        def admit(asked: Asked) -> bool:
            return place.take(asked.request.prompt_tokens)

        while True:
            pieces = self._pieces(place, self.chunk, admit)
            if pieces:
                self.world.spawn(self._finish(pieces, self._pass_end_s(place, work_of(pieces))))
                yield place.stage_free_s[0]
            else:
                yield place.bell

    def _pass_end_s(self, place: Place, work: Work) -> float:
        """Passes go through the stages one after another and never overtake."""
        at_s = self.world.now_s
        for index, stage in enumerate(place.replica):
            at_s = max(at_s, place.stage_free_s.get(index, 0.0))
            at_s += self.cost.stage_work_s(stage, work)
            place.stage_free_s[index] = at_s
            at_s += self.cost.hop_s(stage, work.tokens)
        return at_s

    def _finish(self, pieces: list[Piece], end_s: float) -> Process:
        yield end_s
        for piece in pieces:
            self._computed(piece)

    def _computed(self, piece: Piece) -> None:
        asked = piece.asked
        if asked.computed == 0 and self.policy.reservation is Reservation.BEFORE_TRANSFER:
            asked.decode.unreserved.append(asked)
            self._grant(asked.decode)
        asked.computed += piece.tokens
        if asked.computed == asked.request.prompt_tokens:
            asked.first_s = self.world.now_s
            asked.last_s = self.world.now_s if asked.complete else math.inf
        if asked.reserved:
            self._send(asked)

    def _send(self, asked: Asked) -> None:
        tokens = asked.computed - asked.sent
        asked.sent += tokens
        if not tokens:
            return
        last = asked.sent == asked.request.prompt_tokens
        shares = transfer_shares(design_of(asked.prefill.group), design_of(asked.decode.group))
        for (source, target), share in shares.items():
            size = share * kv_wire_bytes(self.problem.model, tokens, self.problem.wire_mode)
            link = self.problem.cluster.link(source, target)
            arrive = (lambda: self._part_there(asked, len(shares))) if last else (lambda: None)
            ports = self._ports(source, target, link)
            enter_next_port(self.world, Chunk(size, ports, link.latency_s, arrive))

    def _ports(self, source: str, target: str, link: Link) -> list[Port]:
        if source == target:
            return [self._port((source, ""), link)]
        nodes = self.problem.cluster
        return [
            self._port((source, "out"), nodes.node(source).network),
            self._port((source, target), link),
            self._port((target, "in"), nodes.node(target).network),
        ]

    def _port(self, key: tuple[str, str], link: Link) -> Port:
        if key not in self.ports:
            self.ports[key] = Port(self.cost.transfer_s(1.0, Link(link.bytes_per_s)))
            self.world.spawn(serve_port(self.world, self.ports[key]))
        return self.ports[key]

    def _part_there(self, asked: Asked, parts: int) -> None:
        asked.parts_there += 1
        if asked.parts_there < parts:
            return
        asked.prefill.used -= asked.request.prompt_tokens
        self.world.ring(asked.prefill.bell)
        if asked.complete:
            asked.decode.used -= asked.total
            self._grant(asked.decode)
        else:
            asked.decode.ready.append(asked)
            self.world.ring(asked.decode.bell)

    # Decode, and both phases in one group.

    def _decode(self, place: Place) -> Process:
        while True:
            while place.ready and len(place.running) < self.problem.engine.max_running_requests:
                place.running.append(place.ready.pop(0))
            if place.running:
                batch, context = len(place.running), place.mean_context
                step_s = self.cost.decode_step_s(place.replica, batch, context)
                yield self.world.now_s + step_s
                self._step(place)
            else:
                yield place.bell

    def _step(self, place: Place) -> None:
        for asked in place.running:
            asked.decoded += 1
            if asked.complete:
                asked.last_s = self.world.now_s
                place.used -= asked.total
        place.running = [asked for asked in place.running if not asked.complete]
        self._grant(place)

    def _colocated(self, place: Place) -> Process:
        chunked = self.policy.colocated is ColocatedBatching.CHUNKED
        most, stages = self.problem.engine.max_running_requests, place.group.pp
        prefilling: list[Asked] = []

        def admit(asked: Asked) -> bool:
            free = len(place.running) + len(prefilling) < most
            admitted = free and place.take(asked.total)
            prefilling.extend([asked] * admitted)
            return admitted

        while True:
            riding = math.ceil(len(place.running) / stages) if chunked else 0
            budget = max(1, self.chunk - riding)
            tried = [self._pieces(place, budget, admit, whole=not chunked) for _ in range(stages)]
            passes = [pieces for pieces in tried if pieces]
            parts = min(len(place.running), stages) if chunked or not passes else 0
            if not passes and not parts:
                yield place.bell
                continue
            works = [work_of(pieces) for pieces in passes]
            works += [Work(0, 0)] * (parts - len(works))
            for part in range(parts):
                works[part] += Work.of_decode(len(place.running) / parts, place.mean_context)
            yield self.world.now_s + self._round_s(place.replica, works)
            if parts:
                self._step(place)
            for piece in itertools.chain(*passes):
                self._computed_here(place, piece, prefilling)

    def _computed_here(self, place: Place, piece: Piece, prefilling: list[Asked]) -> None:
        asked = piece.asked
        asked.computed += piece.tokens
        if asked.computed < asked.request.prompt_tokens:
            return
        prefilling.remove(asked)
        asked.first_s = self.world.now_s
        if asked.complete:
            asked.last_s = self.world.now_s
            place.used -= asked.total
        else:
            place.running.append(asked)

    def _round_s(self, replica: Replica, works: list[Work]) -> float:
        """Every stage does all works, every work visits all stages; the longer of the two."""
        times = [[self.cost.stage_work_s(stage, work) for stage in replica] for work in works]
        hops = [sum(self.cost.hop_s(stage, work.tokens) for stage in replica) for work in works]
        visits = [sum(stages) + hop for stages, hop in zip(times, hops, strict=True)]
        return max(*visits, *(sum(stage) for stage in zip(*times, strict=True)))
