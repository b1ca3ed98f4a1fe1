"""What each answer to congested links loses against an oracle, over an hour.

    .venv/bin/python benchmarks/congestion.py [-o json] [--seed 0] [--model llama-30b] [--simulate]

The process: every host's port, and every link between two hosts, has a level of its own, the
binary logarithm of its rate; it begins at 40 Gbit/s and takes a uniform step of up to 1.5 octaves
up or down every three minutes, reflected at 1 and 40 Gbit/s. Nothing is known in advance: every
answer is chosen for the links as they are, at once, and kept until the next step.

Answers, from the plan for calm links:

- `nothing`: groups, phases and routes stay.
- `routes`: the linear program alone.
- `flips_routes`: the light re-schedule, from the phases that it left last time.
- `replan`: a full re-plan, taken up when it pays back within the step what loading weights costs
  (2 GB/s for each host; groups that stay serve meanwhile); else flips and routes.
- `oracle`: a full re-plan that costs nothing, or the best of the others where that is better.

Regret is the oracle's goodput that an answer misses, by the cost model. `--simulate` also serves
four of the steps request by request: as many as the model says are served, the rest being shed at
the door, by the routes that the model says they take. `--figure PATH` draws the hour.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass, replace
from itertools import combinations
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import routes_of
from thunderserve.control.planner.change import as_started, with_links
from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.flow import Evaluator, Seat, follow_routes
from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import Problem
from thunderserve.control.planner.rescheduling import (
    DEFAULT_LOAD_BYTES_PER_S,
    reschedule_plan,
    weigh_replan,
)
from thunderserve.control.planner.simulator import simulate
from thunderserve.control.planner.solve import solve
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, Link
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Plan, Route
from thunderserve.core.request import WireMode
from thunderserve.core.slo import Slo
from thunderserve.core.trace import sample_trace
from thunderserve.core.workload import workload_preset

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STEP_S = 180.0
STEPS = 20
SLOWEST_GBIT_PER_S, FASTEST_GBIT_PER_S = 1.0, 40.0
LARGEST_OCTAVES = 1.5
LATENCY_S = 1e-4
ANSWERS = ("nothing", "routes", "flips_routes", "replan")
SIMULATED_STEPS = (4, 9, 14, 19)
SIMULATED_REQUESTS = 1500
SIMULATED_ANSWERS = ("nothing", "routes", "flips_routes", "oracle")


def drifting(cluster: Cluster, *, steps: int, seed: int) -> Iterator[Cluster]:
    """The cluster at each step, its ports and the links between its hosts as slow as they are."""
    draws = Draws(seed)
    names: list[tuple[str, ...]] = [(node.id,) for node in cluster.nodes]
    names += [(a.id, b.id) for a, b in combinations(cluster.nodes, 2)]
    octaves = dict.fromkeys(names, log2(FASTEST_GBIT_PER_S))
    for _ in range(steps):
        for name in names:
            moved = octaves[name] + LARGEST_OCTAVES * (2 * draws.uniform() - 1)
            octaves[name] = _reflected(moved)
        rates = {name: Link(2**at * GIGABIT_PER_S, LATENCY_S) for name, at in octaves.items()}
        nodes = tuple(replace(node, network=rates[node.id,]) for node in cluster.nodes)
        links = [(name[0], name[1], link) for name, link in rates.items() if len(name) > 1]
        yield with_links(replace(cluster, nodes=nodes), [_narrowest(each, rates) for each in links])


def _reflected(octave: float) -> float:
    low, high = log2(SLOWEST_GBIT_PER_S), log2(FASTEST_GBIT_PER_S)
    return 2 * high - octave if octave > high else 2 * low - octave if octave < low else octave


def _narrowest(
    pair: tuple[str, str, Link], rates: dict[tuple[str, ...], Link]
) -> tuple[str, str, Link]:
    """A link is no faster than the ports at its ends."""
    first, second, link = pair
    slowest = min((link, rates[first,], rates[second,]), key=lambda each: each.bytes_per_s)
    return first, second, slowest


@dataclass(frozen=True, slots=True)
class Answer:
    """Goodput of an answer over a step, and what it serves with at the end of it."""

    goodput_rps: float
    plan: Plan
    served_rps: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the links as they are, every answer to them, flips and loads of weights."""

    problem: Problem
    answers: dict[str, Answer]
    flips: int
    replanned: bool

    def goodput_rps(self, answer: str) -> float:
        """Requests per second in time."""
        return self.answers[answer].goodput_rps

    def regret_rps(self, answer: str) -> float:
        """What the oracle has more."""
        return self.goodput_rps("oracle") - self.goodput_rps(answer)


def main() -> None:
    """Command-line entry."""
    arguments = _arguments()
    began_s = time.process_time()
    problem = _problem(arguments.model, WireMode(arguments.wire), arguments.rate)
    steps = list(_hour(problem, arguments.seed))
    figures = _figures(steps, problem.workload.rate_rps)
    if arguments.simulate:
        figures |= _simulated(steps, arguments.seed)
    figures["cpu_s"] = time.process_time() - began_s
    if arguments.figure:
        _draw(arguments.figure, steps)
    if arguments.output == "json":
        print(json.dumps(figures | {"machine": f"{platform.machine()}, one process"}))
    else:
        for name, value in figures.items():
            print(f"{name:44} {value:10.4f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wire", choices=[mode.value for mode in WireMode], default="int4")
    parser.add_argument("--model", default="llama-30b")
    parser.add_argument("--rate", type=float, default=5.53, help="requests per second")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--figure", type=Path)
    return parser.parse_args()


def _problem(model: str, wire: WireMode, rate_rps: float) -> Problem:
    return Problem(
        cluster_preset("paper-cloud-32"),
        model_preset(model),
        workload_preset("azure-conv").with_rate(rate_rps),
        Slo(3.0, 0.15),
        wire_mode=wire,
    )


def _hour(problem: Problem, seed: int) -> Iterator[Step]:
    """Every step of the hour."""
    calm = _solve(problem)
    problem = as_started(problem, calm)
    light = replanned = calm
    for cluster in drifting(problem.cluster, steps=STEPS, seed=seed):
        now = replace(problem, cluster=cluster)
        found = reschedule_plan(now, light)
        light = found.plan
        full = _solve(now)
        taken, loads = _replan(now, replanned, full)
        replanned = taken.plan
        answers = {
            "nothing": _kept(now, calm),
            "routes": _routed(now, calm),
            "flips_routes": _routed(now, light),
            "replan": taken,
        }
        anew = _routed(now, full)
        oracle = max((anew, *answers.values()), key=lambda answer: answer.goodput_rps)
        yield Step(now, {**answers, "oracle": oracle}, len(found.flips), loads)


def _solve(problem: Problem) -> Plan:
    """By evaluations: the clock stands still, so that any machine finds the same plan."""
    return solve(problem, clock=lambda: 0.0)


def _replan(problem: Problem, present: Plan, full: Plan) -> tuple[Answer, bool]:
    """The full plan, if it pays back within the step; and whether it is taken."""
    light = reschedule_plan(problem, present)
    weighed = weigh_replan(problem, present.groups, full, bytes_per_s=DEFAULT_LOAD_BYTES_PER_S)
    payback_s = weighed.payback_s(light.goodput_rps)
    if payback_s is None or payback_s >= STEP_S:
        return Answer(light.goodput_rps, light.plan), False
    loading = weighed.reload_s / STEP_S
    mean_rps = loading * weighed.loading_rps + (1 - loading) * weighed.goodput_rps
    return Answer(mean_rps, full), True


def _kept(problem: Problem, plan: Plan) -> Answer:
    """The plan's routes, cut where a group or a link is full."""
    posed = Evaluator(problem).flow_problem(_seats(plan))
    flow = follow_routes(posed, plan.routes)
    total = flow.served_rps or 1.0
    routes = tuple(
        Route(pair.prefill, pair.decode, rps / total)
        for pair, rps in zip(posed.pairs, flow.rps, strict=True)
        if rps > 0
    )
    return Answer(flow.attained_rps, replace(plan, routes=routes), flow.served_rps)


def _routed(problem: Problem, plan: Plan) -> Answer:
    """The plan's groups and phases, with new routes."""
    found = Evaluator(problem).assess(_seats(plan))
    routed = replace(plan, routes=routes_of(found))
    return Answer(found.flow.attained_rps, routed, found.flow.served_rps)


def _seats(plan: Plan) -> list[Seat]:
    return [Seat(group.id, group.phase, design_of(group)) for group in plan.groups]


def _figures(steps: Sequence[Step], rate_rps: float) -> dict[str, float]:
    oracle = sum(step.goodput_rps("oracle") for step in steps)
    figures = {"rate_rps": rate_rps, "oracle_goodput_rps": oracle / len(steps)}
    for answer in ANSWERS:
        figures[f"{answer}_regret_ratio"] = sum(step.regret_rps(answer) for step in steps) / oracle
        figures[f"{answer}_worst_step_ratio"] = max(
            step.regret_rps(answer) / step.goodput_rps("oracle") for step in steps
        )
    figures["flips"] = sum(step.flips for step in steps)
    figures["replans"] = sum(step.replanned for step in steps)
    return figures


def _simulated(steps: Sequence[Step], seed: int) -> dict[str, float]:
    """Goodput and regret of a few steps, served request by request."""
    totals: dict[str, float] = dict.fromkeys(SIMULATED_ANSWERS, 0.0)
    predicted = dict(totals)
    for step in (steps[at] for at in SIMULATED_STEPS):
        for name in totals:
            answer = step.answers[name]
            workload = step.problem.workload.with_rate(answer.served_rps)
            trace = sample_trace(workload, requests=SIMULATED_REQUESTS, seed=seed)
            report = simulate(answer.plan, step.problem, trace)
            totals[name] += report.slo_attainment_ratio * answer.served_rps
            predicted[name] += answer.goodput_rps
    figures = {}
    for name, total in totals.items():
        figures[f"simulated_{name}_goodput_rps"] = total / len(SIMULATED_STEPS)
        figures[f"predicted_{name}_goodput_rps"] = predicted[name] / len(SIMULATED_STEPS)
        figures[f"simulated_{name}_regret_ratio"] = 1 - total / totals["oracle"]
    return figures


def _draw(path: Path, steps: Sequence[Step]) -> None:
    from thunderserve.cli.planning.charts import Line, draw_lines  # noqa: PLC0415 - an extra

    names = {
        "flips_routes": "flips + routes",
        "routes": "routes only",
        "nothing": "nothing",
        "replan": "re-plan if it pays",
        "oracle": "oracle",
    }
    minutes = [(i + 1) * STEP_S / 60 for i in range(len(steps))]
    lines = [
        Line(title, tuple(zip(minutes, (s.goodput_rps(name) for s in steps), strict=True)))
        for name, title in names.items()
    ]
    draw_lines(
        path,
        lines,
        title="Goodput while links drift between 40 and 1 Gbit/s",
        x_label="minutes",
        y_label="requests per second in time",
    )


if __name__ == "__main__":
    main()
