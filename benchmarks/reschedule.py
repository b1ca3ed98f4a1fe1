"""How long phases and routes take to choose anew, and what that finds.

    .venv/bin/python benchmarks/reschedule.py [-o json]

Fleets of LLaMA-30B groups on hosts of four GPUs like those of the `paper-cloud-32` preset, half of
them prefilling. A host is lost and the workload turns from conversations to code, at as many
requests per second for each group. `linked` fleets have another speed between every two hosts, so
that no two groups are alike. CPU seconds of one process; `x_one_assessment` is to assessing the
present phases once, in the same run: that is what new routes cost. `x_best_goodput` is to the best
of all assignments of phases, tried one by one; for small fleets only.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from itertools import combinations, cycle, islice, product

from thunderserve.control.planner.change import without_nodes
from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.flow import Evaluator, Seat
from thunderserve.control.planner.problem import Problem
from thunderserve.control.planner.rescheduling import reschedule_plan, route_groups
from thunderserve.core.catalogue import catalogue
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, Link, Node
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Gpu, Group, Phase, Plan, Stage
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

MODEL = model_preset("llama-30b")
TP = {"A40": 2, "A6000": 2, "A5000": 4, "3090Ti": 4}
HOST_GPUS = 4
RPS_PER_GROUP = 0.25
TRIED_GROUPS = 12
FLEETS = ((12, False), (12, True), (64, False), (64, True))


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    output = parser.parse_args().output
    figures: dict[str, float | str] = {"machine": f"{platform.machine()}, one process"}
    for groups, linked in FLEETS:
        figures |= measure(groups, linked=linked)
    if output == "json":
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:44} {value if isinstance(value, str) else format(value, '10.4f')}")


def measure(groups: int, *, linked: bool) -> dict[str, float | str]:
    """Figures of one fleet."""
    cluster, plan = fleet(groups, linked=linked)
    rate_rps = RPS_PER_GROUP * groups
    conversation, code = (
        Problem(cluster, MODEL, workload_preset(name).with_rate(rate_rps), Slo(3.0, 0.15))
        for name in ("azure-conv", "azure-code")
    )
    plan = replace(plan, routes=route_groups(conversation, plan.groups))
    lost = plan.groups[-1].gpus[0].node
    began_s = time.process_time()
    found = reschedule_plan(code, plan, lost=[lost])
    spent_s = time.process_time() - began_s
    once_s = _assess_once_s(code, plan)
    name = f"groups_{groups}_linked" if linked else f"groups_{groups}"
    figures: dict[str, float | str] = {
        f"{name}_cpu_s": spent_s,
        f"{name}_x_one_assessment": spent_s / once_s,
        f"{name}_flows_solved": found.plan.search_evaluations,
        f"{name}_flips": len(found.flips),
        f"{name}_goodput_without_flips_rps": found.routed_rps,
        f"{name}_goodput_rps": found.goodput_rps,
    }
    if groups <= TRIED_GROUPS:
        best_rps = _best_rps(code, found.plan, lost)
        figures[f"{name}_x_best_goodput"] = found.goodput_rps / best_rps
    return figures


def _best_rps(problem: Problem, plan: Plan, lost: str) -> float:
    evaluator = Evaluator(replace(problem, cluster=without_nodes(problem.cluster, [lost])))
    designs = [(group.id, design_of(group)) for group in plan.groups]
    return max(
        evaluator.assess(
            [
                Seat(name, phase, design)
                for (name, design), phase in zip(designs, phases, strict=True)
            ]
        ).flow.attained_rps
        for phases in product((Phase.PREFILL, Phase.DECODE), repeat=len(designs))
    )


def _assess_once_s(problem: Problem, plan: Plan) -> float:
    seats = [Seat(group.id, group.phase, design_of(group)) for group in plan.groups]
    began_s = time.process_time()
    Evaluator(problem).assess(seats)
    return time.process_time() - began_s


def fleet(groups: int, *, linked: bool) -> tuple[Cluster, Plan]:
    """So many groups, each of one stage, on hosts of four equal GPUs; no routes."""
    types = catalogue("paper_table1")
    kinds = (kind for kind in cycle(TP) for _ in range(HOST_GPUS // TP[kind]))
    made: list[Group] = []
    nodes: list[Node] = []
    free: list[Gpu] = []
    for index, kind in enumerate(islice(kinds, groups)):
        if not free:
            free = [Gpu(f"n{len(nodes)}/{place}", kind) for place in range(HOST_GPUS)]
            local = Link(types.get(kind).local_bytes_per_s)
            nodes.append(Node(free[0].node, tuple(free), local, Link(40 * GIGABIT_PER_S, 1e-4)))
        held, free = free[: TP[kind]], free[TP[kind] :]
        phase = (Phase.PREFILL, Phase.DECODE)[index % 2]
        made.append(Group(f"g{index}", phase, TP[kind], 1, (Stage(MODEL.layers, tuple(held)),)))
    draws = Draws(groups)
    links = tuple(
        (a.id, b.id, Link((5 + 30 * draws.uniform()) * GIGABIT_PER_S, 1e-4))
        for a, b in combinations(nodes, 2)
    )
    cluster = Cluster(tuple(nodes), tuple(map(types.get, TP)), links if linked else ())
    return cluster, Plan(0, "thunderserve", 0, MODEL.name, tuple(made), ())


if __name__ == "__main__":
    main()
