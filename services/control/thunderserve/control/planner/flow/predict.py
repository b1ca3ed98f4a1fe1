"""What the cost model expects of groups and a flow between them."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.physics import GroupFigures, Transfer, Waits, pair_in_time
from thunderserve.control.planner.problem import Objective
from thunderserve.core.plan import Phase, Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thunderserve.control.planner.flow.evaluate import Assessment, Evaluator
    from thunderserve.control.planner.flow.flow import Pair
    from thunderserve.control.planner.physics import FloatArray
    from thunderserve.core.slo import Slo

__all__ = ["predict"]

PERCENTILE = 0.99
_LONGEST_S = 1e6
_HALVINGS = 50


def predict(evaluator: Evaluator, assessment: Assessment) -> Prediction:
    """The figures of a plan, for the requests that it serves; the rest is to be shed.

    Here every route is looked at with the loads that the flow gives its groups and its ports, more
    closely than the flow itself could. Throughput counts answer tokens. Attainment is the share of
    what arrives; of what is served when the plan was made for capacity, whatever arrives.
    """
    problem, flow = evaluator.problem, assessment.flow
    asked = problem.workload.rate_rps
    if problem.objective is Objective.CAPACITY:
        asked = flow.served_rps or math.inf
    gpus = [
        name for seat in assessment.seats for stage in seat.design.stages for name in stage.types
    ]
    prices = {gpu_type.name: gpu_type.usd_per_hour for gpu_type in problem.cluster.types}
    routes = _routes(evaluator, assessment)
    met_rps = sum(route.rps * route.met_ratio(evaluator, problem.slo) for route in routes)
    return Prediction(
        slo_attainment_ratio=min(1.0, met_rps / asked),
        goodput_rps=met_rps,
        throughput_tokens_per_s=flow.served_rps * evaluator.shapes.sample.mean_output,
        ttft_p99_s=_ttft_p99_s(evaluator, assessment),
        tpot_p99_s=_tpot_p99_s(routes),
        usd_per_hour=sum(prices[name] for name in gpus),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Route:
    """A pair that something flows through, the loads of its groups, and its transfer under load."""

    first: GroupFigures
    later: GroupFigures
    loads_rps: tuple[float, float]
    transfer: Transfer
    port: Waits | None
    rps: float

    def met_ratio(self, evaluator: Evaluator, slo: Slo) -> float:
        """Share of its requests that meet all bounds."""
        met = pair_in_time(
            slo, self.first, self.later, self.loads_rps, transfer=self.transfer, port=self.port
        )
        return float(evaluator.shapes.share_of(met)[0])


def _routes(evaluator: Evaluator, assessment: Assessment) -> list[_Route]:
    seats = {seat.id: seat for seat in assessment.seats}
    loads = _loads_rps(assessment)
    ports = _port_waits(evaluator, assessment)
    later = _decoders(evaluator, assessment, loads, ports)
    found = []
    for pair, rps in zip(assessment.problem.pairs, assessment.flow.rps, strict=True):
        if rps > 0:
            first = seats[pair.prefill]
            found.append(
                _Route(
                    evaluator.shapes.figures(first.design, first.phase),
                    later[pair.decode],
                    (loads[pair.prefill], loads[pair.decode]),
                    evaluator.transfer(first, seats[pair.decode]),
                    _busiest(pair, ports),
                    rps,
                )
            )
    return found


def _busiest(pair: Pair, ports: Mapping[str, Waits]) -> Waits | None:
    on_the_way = (ports[port] for port, _ in pair.bytes)
    return max(on_the_way, key=lambda port: float(port.busy.max()), default=None)


def _decoders(
    evaluator: Evaluator,
    assessment: Assessment,
    loads: Mapping[str, float],
    ports: Mapping[str, Waits],
) -> dict[str, GroupFigures]:
    """Groups that decode, whose memory is set aside while the groups that feed them prefill."""
    shapes = evaluator.shapes
    seats = {seat.id: seat for seat in assessment.seats}
    held_s: dict[str, float] = defaultdict(float)
    for pair, rps in zip(assessment.problem.pairs, assessment.flow.rps, strict=True):
        if rps > 0 and seats[pair.prefill].phase is Phase.PREFILL:
            first = seats[pair.prefill]
            figures = shapes.figures(first.design, first.phase)
            moved = evaluator.transfer(first, seats[pair.decode])
            port = _busiest(pair, ports)
            exposed_s = shapes.sample.mean(moved.exposed_s(shapes.sample.prompt, figures.times))
            # Full memory keeps the queue for prefill short: no longer than prefill itself.
            held_s[pair.decode] += rps * (
                figures.idle_s
                + min(figures.idle_s, figures.mean_first_s(loads[pair.prefill]) - figures.idle_s)
                + exposed_s
                + (float(port.mean_s()[0]) if port else 0.0)
            )
    return {
        seat.id: shapes.decode_figures(
            shapes.replica(seat.design), held_s[seat.id] / loads[seat.id]
        )
        if seat.phase is Phase.DECODE and loads[seat.id] > 0
        else shapes.figures(seat.design, seat.phase)
        for seat in assessment.seats
    }


def _loads_rps(assessment: Assessment) -> dict[str, float]:
    """Requests per second through every group."""
    loads = {seat.id: 0.0 for seat in assessment.seats}
    for pair, rps in zip(assessment.problem.pairs, assessment.flow.rps, strict=True):
        for station in pair.stations:
            if rps > 0:
                loads[station] += rps
    return loads


def _port_waits(evaluator: Evaluator, assessment: Assessment) -> dict[str, Waits]:
    """What the flow's transfers wait for in every port, by the group that sends most there."""
    posed, rates, shapes = assessment.problem, evaluator.port_rates, evaluator.shapes
    seats = {seat.id: seat for seat in assessment.seats}
    sent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for pair, rps in zip(posed.pairs, assessment.flow.rps, strict=True):
        for port, size in pair.bytes:
            if rps > 0:
                sent[port][pair.prefill] += rps * size
    waits = {}
    for port, by_group in sent.items():
        most = seats[max(by_group, key=by_group.__getitem__)]
        times = shapes.figures(most.design, most.phase).times
        busy = np.array([sum(by_group.values()) / rates[port]])
        waits[port] = shapes.ports.waits(rates[port], busy, times)
    return waits


def _ttft_p99_s(evaluator: Evaluator, assessment: Assessment) -> float:
    loads = _loads_rps(assessment)
    busy = [
        (evaluator.shapes.figures(seat.design, seat.phase), np.array([loads[seat.id]]))
        for seat in assessment.seats
        if seat.phase is not Phase.DECODE and loads[seat.id] > 0
    ]
    if not busy:
        return 0.0
    shapes, served = evaluator.shapes, assessment.flow.served_rps
    low, high = 1e-6, _LONGEST_S
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        met = sum(
            float(load[0] * shapes.share_of(figures.begun(load, middle))[0])
            for figures, load in busy
        )
        low, high = (low, middle) if met >= PERCENTILE * served else (middle, high)
    return high


def _tpot_p99_s(routes: list[_Route]) -> float:
    """Over all routes and lengths, transfer included."""
    times, weights = [], []
    for route in routes:
        sample = route.later.sample
        many = sample.steps > 0
        exposed_s = np.zeros_like(sample.steps)
        if not route.first.colocated:
            exposed_s = route.transfer.exposed_s(sample.prompt, route.first.times)
        step_s = route.later.step_s(route.loads_rps[1])
        times.append(step_s + exposed_s[many] / sample.steps[many])
        weights.append(route.rps * sample.share[many])
    if not times:
        return 0.0
    return _percentile(np.concatenate(times), np.concatenate(weights))


def _percentile(values: FloatArray, weights: FloatArray) -> float:
    if not len(values):
        return 0.0
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    at = int(np.searchsorted(reached, PERCENTILE * reached[-1]))
    return float(values[order][min(at, len(values) - 1)])
