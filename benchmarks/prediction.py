"""How far what the planner predicts is from what the simulator sees.

    .venv/bin/python benchmarks/prediction.py [-o json] [--plans N]

Plans are drawn at random, with a seed: a cluster, its links, a model, a workload, bounds, sizes of
chunks; groups and phases, good ones and bad; and how much arrives, from idle to more than the plan
serves (what the flow leaves over is shed before it arrives). Attainment is in points of 100. Each
plan is looked at under Poisson arrivals, and under arrivals as bursty as the recorded traces.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import plan_of
from thunderserve.control.planner.design import Design, DesignStage
from thunderserve.control.planner.flow import Evaluator, Seat
from thunderserve.control.planner.problem import EngineLimits, Objective, Problem
from thunderserve.control.planner.simulator import simulate
from thunderserve.core.catalogue import catalogue
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, Link, Node
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Gpu, Phase
from thunderserve.core.request import WireMode
from thunderserve.core.slo import Slo
from thunderserve.core.trace import sample_trace
from thunderserve.core.workload import POISSON, workload_preset

if TYPE_CHECKING:
    from thunderserve.core.plan import Plan

FLEETS = (
    ("A40", "A40", "A6000", "A6000", "A5000", "A5000", "3090Ti", "3090Ti"),
    ("A100", "A100"),
    ("A40", "3090Ti", "3090Ti"),
    ("L40S", "A100", "A6000", "A6000"),
)
MODELS = (("llama-30b", 4), ("llama-3.1-8b", 1), ("qwen3-32b", 4), ("opt-13b", 2))
GBITS = (5.0, 10.0, 40.0, 100.0)
SHARES = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 1.0, 1.2)
CHUNKS = (512, 2048, 8192)
REQUESTS, BURSTY_REQUESTS = 3000, 8000


@dataclass(frozen=True, slots=True)
class Compared:
    """One plan: what was predicted, and what was seen."""

    name: str
    kind: str
    predicted_ratio: float
    simulated_ratio: float
    ttft_ratio: float
    tpot_ratio: float

    @property
    def points(self) -> float:
        """Predicted less simulated, in points of 100."""
        return 100 * (self.predicted_ratio - self.simulated_ratio)


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--plans", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    figures: dict[str, float | str] = {"machine": f"{platform.machine()}, one process"}
    for name, bursty in (("poisson", False), ("bursty", True)):
        began_s = time.process_time()
        found = [compare(arguments.seed + i, bursty=bursty) for i in range(arguments.plans)]
        figures |= summary(name, found)
        figures[f"{name}_cpu_s"] = time.process_time() - began_s
        if arguments.output == "table":
            for each in sorted(found, key=lambda each: -abs(each.points)):
                print(
                    f"{each.points:+6.1f}  {100 * each.predicted_ratio:5.1f} "
                    f"{100 * each.simulated_ratio:5.1f}  (ttft {100 * each.ttft_ratio:5.1f}, "
                    f"tpot {100 * each.tpot_ratio:5.1f})  {name} {each.name}"
                )
    if arguments.output == "json":
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:44} {value if isinstance(value, str) else format(value, '10.3f')}")


def summary(name: str, found: list[Compared]) -> dict[str, float]:
    """Means of the differences, over all plans and by kind."""
    by_kind = defaultdict(list)
    for each in found:
        by_kind[each.kind].append(abs(each.points))
    points = [each.points for each in found]
    return {
        f"{name}_plans": float(len(found)),
        f"{name}_mean_absolute_points": statistics.fmean(map(abs, points)),
        f"{name}_median_absolute_points": statistics.median(map(abs, points)),
        f"{name}_mean_points": statistics.fmean(points),
        f"{name}_worst_points": max(points, key=abs),
    } | {
        f"{name}_{kind}_mean_absolute_points": statistics.fmean(each)
        for kind, each in sorted(by_kind.items())
    }


def compare(seed: int, *, bursty: bool) -> Compared:
    """One plan, drawn by its seed."""
    draws = Draws(1000 + seed)
    problem, least_gpus = draw_problem(draws, bursty=bursty)
    kind = draws.pick(("split", "split", "colocated", "mixed"))
    seats = draw_seats(problem, draws, least_gpus, kind)
    share = draws.pick(SHARES)
    widest = Evaluator(replace(problem, objective=Objective.CAPACITY, target_ratio=0.0))
    most_rps = widest.assess(seats).flow.served_rps
    if most_rps <= 0:
        return compare(seed + 10_000, bursty=bursty)
    problem = replace(problem, workload=problem.workload.with_rate(share * most_rps))
    evaluator = Evaluator(problem)
    assessment = evaluator.assess(seats)
    if assessment.flow.served_rps < 1e-3 * most_rps:
        return compare(seed + 10_000, bursty=bursty)
    plan = plan_of(evaluator, assessment, strategy="random", seed=seed)
    served = problem.workload.with_rate(assessment.flow.served_rps)
    count = BURSTY_REQUESTS if bursty else REQUESTS
    report = simulate(plan, problem, sample_trace(served, requests=count, seed=seed))
    predicted_rps = plan.predicted.goodput_rps if plan.predicted else 0.0
    return Compared(
        name=_name(problem, plan, kind, share),
        kind=kind,
        predicted_ratio=predicted_rps / assessment.flow.served_rps,
        simulated_ratio=report.slo_attainment_ratio,
        ttft_ratio=report.ttft_attainment_ratio,
        tpot_ratio=report.tpot_attainment_ratio,
    )


def _name(problem: Problem, plan: Plan, kind: str, share: float) -> str:
    link = problem.cluster.nodes[0].network.bytes_per_s / GIGABIT_PER_S
    groups = " ".join(
        f"{group.phase[0]}{group.tp}x{group.pp}{group.gpus[0].type}" for group in plan.groups
    )
    return (
        f"{problem.model.name} {problem.workload.name} {link:.0f}G {problem.wire_mode} "
        f"chunk {problem.engine.chunk_tokens[0]} {kind} at {share} : {groups}"
    )


def draw_problem(draws: Draws, *, bursty: bool) -> tuple[Problem, int]:
    """A problem, and how many GPUs of a kind hold its model."""
    kinds = draws.pick(FLEETS)
    gbit = draws.pick(GBITS)
    model, least_gpus = draws.pick(MODELS)
    types = catalogue("tensor_dense")
    nodes = tuple(
        Node(
            f"n{i}",
            tuple(Gpu(f"n{i}/{at}", kind) for at in range(4)),
            Link(types.get(kind).local_bytes_per_s, 1e-5),
            Link(gbit * GIGABIT_PER_S, 1e-4),
        )
        for i, kind in enumerate(kinds)
    )
    workload = workload_preset(draws.pick(("azure-conv", "azure-code")))
    return Problem(
        Cluster(nodes, tuple(types.get(kind) for kind in dict.fromkeys(kinds))),
        model_preset(model),
        workload if bursty else replace(workload, arrivals=POISSON),
        Slo(draws.pick((1.0, 3.0, 6.0)), draws.pick((0.08, 0.15, 0.3))),
        engine=EngineLimits(chunk_tokens=(draws.pick(CHUNKS),)),
        wire_mode=draws.pick((WireMode.INT4, WireMode.RAW16)),
    ), least_gpus


def draw_seats(problem: Problem, draws: Draws, least_gpus: int, kind: str) -> list[Seat]:
    """Groups of two or four GPUs of one host, in phases that can serve."""
    seats: list[Seat] = []
    phases = {
        "split": (Phase.PREFILL, Phase.DECODE),
        "colocated": (Phase.COLOCATED,),
        "mixed": tuple(Phase),
    }[kind]
    for node in problem.cluster.nodes:
        size = max(
            least_gpus if node.gpus[0].type in ("A5000", "3090Ti") else 2, draws.pick((2, 4))
        )
        for at in range(0, 4, size):
            tp = draws.pick([tp for tp in (1, 2, 4) if tp <= size])
            stages = size // tp
            layers = [problem.model.layers // stages] * stages
            layers[-1] += problem.model.layers - sum(layers)
            types = (node.gpus[at].type,) * tp
            design = Design(tuple(DesignStage(count, node.id, types) for count in layers))
            seats.append(Seat(f"g{len(seats)}", draws.pick(phases), design))
    if kind != "colocated":  # at least one of either phase
        seats[0] = replace(seats[0], phase=Phase.PREFILL)
        seats[-1] = replace(seats[-1], phase=Phase.DECODE)
    return seats


if __name__ == "__main__":
    main()
