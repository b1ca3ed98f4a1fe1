"""How much of the bottleneck is the network: capacity against the speed of links.

    .venv/bin/python benchmarks/network.py [-o json] [--workload azure-conv] [--figure PATH]

On `paper-cloud-32`, between whose hosts every port has the speed that is swept, and for two models:
LLaMA-30B, whose every head has keys and values of its own, and Qwen3-32B, where eight query heads
share one pair. Capacity is the highest rate of which 90 % are in time, by the cost model, of the
best plan found with every group split into phases (`split`), with none (`colocated`, which sends no
KV cache and depends on no link), or as the planner likes (`choice`). A share is of the same plans'
capacity when links have no end.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import EngineLimits, Objective, Problem
from thunderserve.control.planner.solve import solve
from thunderserve.core.hardware import GIGABIT_PER_S, Link
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

SPEEDS_GBIT_PER_S = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 100.0)
ENDLESS_GBIT_PER_S = 1e4
MODELS = ("llama-30b", "qwen3-32b")
PHASES = {
    "split": (Phase.PREFILL, Phase.DECODE),
    "choice": (Phase.PREFILL, Phase.DECODE, Phase.COLOCATED),
}
Curves = dict[tuple[str, WireMode, str], dict[float, float]]


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--workload", default="azure-conv")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    began_s = time.process_time()
    curves = {
        (model, wire, kind): {
            speed: capacity_rps(arguments.workload, model, wire, PHASES[kind], speed)
            for speed in (*SPEEDS_GBIT_PER_S, ENDLESS_GBIT_PER_S)
        }
        for model in MODELS
        for wire in (WireMode.INT4, WireMode.RAW16)
        for kind in PHASES
    }
    alone = {
        model: capacity_rps(
            arguments.workload, model, WireMode.INT4, (Phase.COLOCATED,), ENDLESS_GBIT_PER_S
        )
        for model in MODELS
    }
    spent_s = time.process_time() - began_s
    if arguments.figure:
        _draw(arguments.figure, curves)
    if arguments.output == "json":
        machine = {"machine": f"{platform.machine()}, one process", "cpu_s": spent_s}
        print(json.dumps(_figures(curves, alone) | machine))
    else:
        _print(curves, alone)
        print(f"\n{spent_s:.0f} s of CPU")


def capacity_rps(
    workload: str, model: str, wire: WireMode, phases: tuple[Phase, ...], gbit_per_s: float
) -> float:
    """The highest rate of which 90 % are in time, of the best plan found."""
    cluster = cluster_preset("paper-cloud-32")
    port = Link(gbit_per_s * GIGABIT_PER_S, 1e-4)
    nodes = tuple(replace(node, network=port) for node in cluster.nodes)
    problem = Problem(
        replace(cluster, nodes=nodes),
        model_preset(model),
        workload_preset(workload),
        Slo(3.0, 0.15),
        EngineLimits(phases=phases),
        wire,
        objective=Objective.CAPACITY,
    )
    # The clock stands still: the search ends by itself, alike on every machine.
    predicted = solve(problem, clock=lambda: 0.0).predicted
    return predicted.throughput_tokens_per_s / problem.workload.output.mean if predicted else 0.0


def _figures(curves: Curves, alone: dict[str, float]) -> dict[str, float]:
    found = {f"{model}_colocated_rps": rate for model, rate in alone.items()}
    for (model, wire, kind), curve in curves.items():
        for speed, rate in curve.items():
            at = "endless" if speed == ENDLESS_GBIT_PER_S else f"{speed:g}"
            found[f"{model}_{wire}_{kind}_at_{at}_rps"] = rate
    return found


def _print(curves: Curves, alone: dict[str, float]) -> None:
    speeds = [*(f"{speed:g}" for speed in SPEEDS_GBIT_PER_S), "endless"]
    print(f"{'requests/s at Gbit/s':32}" + "".join(f"{speed:>9}" for speed in speeds))
    for (model, wire, kind), curve in curves.items():
        name = f"{model} {wire} {kind}"
        print(f"{name:32}" + "".join(f"{rate:9.2f}" for rate in curve.values()))
    for model, rate in alone.items():
        print(f"{model + ' colocated':32}{rate:9.2f}")


def _draw(path: Path, curves: Curves) -> None:
    from thunderserve.cli.planning.charts import Line, draw_lines  # noqa: PLC0415 - an extra

    lines = [
        Line(
            f"{model}, {wire}, {kind}",
            tuple((speed, curve[speed] / curve[ENDLESS_GBIT_PER_S]) for speed in SPEEDS_GBIT_PER_S),
        )
        for (model, wire, kind), curve in sorted(curves.items(), key=lambda each: each[0][2])
        if kind == "split" or (model, wire) == ("llama-30b", WireMode.RAW16)
    ]
    draw_lines(
        path,
        lines,
        title="Capacity that slow links leave",
        x_label="link between hosts, Gbit/s",
        y_label="share of the capacity with endless links",
        y_range=(0.0, 1.3),  # room for the names, which meet at 1
        log_x=True,
    )


if __name__ == "__main__":
    main()
