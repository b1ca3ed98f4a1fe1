"""What the cost model expects of groups and a flow between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from thunderserve.control.planner.problem import Objective
from thunderserve.core.plan import Phase, Prediction

if TYPE_CHECKING:
    from thunderserve.control.planner.evaluate import Assessment, Evaluator
    from thunderserve.control.planner.figures import Transfer

__all__ = ["predict"]

PERCENTILE = 0.99
_LONGEST_S = 1e6
_HALVINGS = 60


def predict(evaluator: Evaluator, assessment: Assessment) -> Prediction:
    """The figures of a plan, for the requests that it serves; the rest is to be shed.

    Throughput counts answer tokens. Attainment is the share of what arrives; of what is served
    when the plan was made for capacity, whatever arrives.
    """
    problem, flow = evaluator.problem, assessment.flow
    asked = problem.workload.rate_rps
    if problem.objective is Objective.CAPACITY:
        asked = flow.served_rps or math.inf
    gpus = [
        name for seat in assessment.seats for stage in seat.design.stages for name in stage.types
    ]
    prices = {gpu_type.name: gpu_type.usd_per_hour for gpu_type in problem.cluster.types}
    return Prediction(
        slo_attainment_ratio=min(1.0, max(0.0, flow.attained_rps) / asked),
        goodput_rps=max(0.0, flow.attained_rps),
        throughput_tokens_per_s=flow.served_rps * problem.workload.output.mean,
        ttft_p99_s=_ttft_p99_s(evaluator, assessment),
        tpot_p99_s=_tpot_p99_s(evaluator, assessment),
        usd_per_hour=sum(prices[name] for name in gpus),
    )


def _ttft_p99_s(evaluator: Evaluator, assessment: Assessment) -> float:
    served = assessment.flow.served_rps
    groups = [
        (evaluator.shapes.figures(seat.design, seat.phase), assessment.load_rps(seat.id))
        for seat in assessment.seats
        if seat.phase is not Phase.DECODE
    ]
    busy = [(figures, load) for figures, load in groups if load > 0]
    if not busy:
        return 0.0
    low, high = 0.0, _LONGEST_S
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        met = sum(load * figures.ttft_ratio(load, middle) for figures, load in busy)
        low, high = (low, middle) if met >= PERCENTILE * served else (middle, high)
    return high


def _tpot_p99_s(evaluator: Evaluator, assessment: Assessment) -> float:
    """Over all pairs and lengths, transfer included."""
    workload = evaluator.problem.workload
    seats = {seat.id: seat for seat in assessment.seats}
    times: list[tuple[float, float]] = []
    for pair, rps in zip(assessment.problem.pairs, assessment.flow.rps, strict=True):
        if rps <= 0:
            continue
        decode = seats[pair.decode]
        figures = evaluator.shapes.figures(decode.design, decode.phase)
        step_s = figures.step_s(assessment.load_rps(decode.id))
        transfer = evaluator.transfer(seats[pair.prefill], decode)
        times += [
            (_tpot_s(step_s, transfer, prompt, output), rps)
            for prompt in workload.prompt.values
            for output in workload.output.values
            if output > 1
        ]
    return _percentile(times)


def _tpot_s(step_s: float, transfer: Transfer, prompt: float, output: float) -> float:
    return step_s + transfer.seconds(prompt) / (output - 1)


def _percentile(weighted: list[tuple[float, float]]) -> float:
    left = PERCENTILE * sum(weight for _, weight in weighted)
    for value, weight in sorted(weighted):
        left -= weight
        if left <= 0:
            return value
    return max((value for value, _ in weighted), default=0.0)
