"""The linear program that sends all requests down one route, and what its missing rows cost.

    .venv/bin/python benchmarks/collapse.py [-o json] [--figure PATH]

The groups are those of the plan that ThunderServe's authors published for LLaMA-30B under Azure's
conversations: 4 prefill and 8 decode groups, 32 possible routes. Three programs route a load that
grows from a twentieth of what they can carry to all of it:

- `shares`: maximise attainment of idle pairs, shares sum to 1, nothing else.
- `capacities`: the same with rows for what every group and port can carry.
- `ours`: also with attainment that falls as a group fills, and load kept even.

Every answer is judged alike: routes get their shares, a full group or port serves what it can.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pulp

from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.flow import Evaluator, Seat, follow_routes, solve_flow
from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.strategies import NODES, plan_published
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Route
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.flow import FlowProblem

LOADS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PROGRAMS = ("shares", "capacities", "ours")
_SMALLEST_SHARE = 1e-6


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    rows = measure()
    if arguments.figure:
        _draw(arguments.figure, rows)
    figures = _figures(rows)
    if arguments.output == "json":
        print(json.dumps(figures | {"machine": f"{platform.machine()}, one process"}))
        return
    print("load    " + "".join(f"{name:>24}" for name in PROGRAMS))
    for load, row in zip(LOADS, rows, strict=True):
        cells = (f"{routes:4} routes, {ratio:6.1%} in time" for routes, ratio in row.values())
        print(f"{load:5.0%}   " + "".join(f"{cell:>24}" for cell in cells))


def measure() -> list[dict[str, tuple[int, float]]]:
    """For every load, the routes that each program uses and the share of requests in time."""
    most_rps = posed(1.0).most_rps()
    rows = []
    for load in LOADS:
        problem = posed(load * most_rps)
        routes = {
            "shares": simple_flow(problem, limited=False),
            "capacities": simple_flow(problem, limited=True),
            "ours": list(solve_flow(problem).rps),
        }
        rows.append({name: _judged(problem, rps) for name, rps in routes.items()})
    return rows


def posed(rate_rps: float) -> FlowProblem:
    """The published groups under that many conversations per second."""
    problem = Problem(
        cluster_preset("paper-cloud-32"),
        model_preset("llama-30b"),
        workload_preset("azure-conv").with_rate(rate_rps),
        Slo(3.0, 0.15),
        EngineLimits(max_nodes=NODES),
    )
    plan = plan_published(problem, 0, lambda: 0.0)
    seats = [Seat(group.id, group.phase, design_of(group)) for group in plan.groups]
    return Evaluator(problem).flow_problem(seats)


def simple_flow(problem: FlowProblem, *, limited: bool) -> list[float]:
    """Attainment of idle pairs maximised; `limited` adds rows for groups and ports."""
    program = pulp.LpProblem("simple", pulp.LpMaximize)
    flows = [program.add_variable(f"flow_{i}", 0) for i in range(len(problem.pairs))]
    program += pulp.lpSum(
        pair.attainment_ratio * flow for pair, flow in zip(problem.pairs, flows, strict=True)
    )
    program += pulp.lpSum(flows) <= problem.demand_rps
    if limited:
        _limit(program, problem, flows)
    program.solve(pulp.HiGHS(msg=False, threads=1))
    return [max(0.0, flow.value()) for flow in flows]


def _limit(program: pulp.LpProblem, problem: FlowProblem, flows: Sequence[pulp.LpVariable]) -> None:
    uses: dict[str, list[pulp.LpAffineExpression]] = defaultdict(list)
    for pair, flow in zip(problem.pairs, flows, strict=True):
        for station in pair.stations:
            uses[station].append(1.0 * flow)
        for port, sent in pair.bytes:
            uses[port].append(sent * flow)
    limits = {station.id: station.capacity_rps for station in problem.stations}
    for place, terms in uses.items():
        limit = limits[place] if place in limits else problem.ports[place]
        program += pulp.lpSum(terms) * (1 / limit) <= 1


def _judged(problem: FlowProblem, rps: Sequence[float]) -> tuple[int, float]:
    total = sum(rps)
    shares = [flow / total for flow in rps]
    used = [
        Route(pair.prefill, pair.decode, share)
        for pair, share in zip(problem.pairs, shares, strict=True)
        if share > _SMALLEST_SHARE
    ]
    return len(used), follow_routes(problem, used).attained_rps / problem.demand_rps


def _figures(rows: Sequence[dict[str, tuple[int, float]]]) -> dict[str, float]:
    return {
        f"{name}_{figure}_at_{load:.0%}".replace("%", "_percent"): value
        for load, row in zip(LOADS, rows, strict=True)
        for name, (routes, ratio) in row.items()
        for figure, value in (("routes", routes), ("attainment_ratio", ratio))
    }


def _draw(path: Path, rows: Sequence[dict[str, tuple[int, float]]]) -> None:
    from thunderserve.cli.planning.charts import Line, draw_lines  # noqa: PLC0415 - an extra

    titles = {"ours": "all rows", "capacities": "capacity rows", "shares": "no rows"}
    most = {name: max(row[name][0] for row in rows) for name in titles}
    lines = [
        Line(
            f"{title}: {most[name]} route{'s' * (most[name] > 1)}",
            tuple((100 * load, row[name][1]) for load, row in zip(LOADS, rows, strict=True)),
        )
        for name, title in titles.items()
    ]
    draw_lines(
        path,
        lines,
        title="Without capacity rows the program sends everything down one route",
        x_label="load, % of what the groups can carry",
        y_label="share of requests in time",
        y_range=(0.0, 1.02),
    )


if __name__ == "__main__":
    main()
