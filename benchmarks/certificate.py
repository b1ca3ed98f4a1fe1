"""How close to the best plan the search comes, and what proving it costs.

    benchmarks/certificate.py                  100 clusters of 4-8 mixed GPUs, then 8-128 GPUs
    benchmarks/certificate.py --clusters 100 --sizes "" --search-alone
    benchmarks/certificate.py --clusters 20 --sizes 8,32 -o json
    benchmarks/certificate.py --clusters 0 --proof-s 10 --figure gaps.png

Gaps are of `solve`'s plan against the proven optimum, or against the bound where that is not
proven. On a few GPUs `solve` takes the proven optimum itself; `--search-alone` leaves that out.
Times are CPU seconds of one process.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.control.planner.certificate import certify
from thunderserve.control.planner.problem import EngineLimits, Objective, Problem
from thunderserve.control.planner.solve import SearchSettings, solve
from thunderserve.core.catalogue import catalogue
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, Link, Node
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Certificate, Gpu, Phase
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS = ("A40", "A6000", "A5000", "3090Ti")
ALL = (Phase.PREFILL, Phase.DECODE, Phase.COLOCATED)
SPLIT = (Phase.PREFILL, Phase.DECODE)
CERTIFY_BUDGET_S = 60.0
WITHOUT_GAP = 1e-4


def cluster_of(*nodes: list[str], gbit_per_s: float) -> Cluster:
    """Hosts with these GPUs, all behind the same ports."""
    types = catalogue("paper_table1")
    held = tuple(
        Node(
            f"n{i}",
            tuple(Gpu(f"n{i}/{index}", kind) for index, kind in enumerate(kinds)),
            Link(32e9, 1e-5),
            Link(gbit_per_s * GIGABIT_PER_S, 1e-4),
        )
        for i, kinds in enumerate(nodes)
    )
    return Cluster(held, tuple(types.get(kind) for kind in KINDS))


def random_problem(draws: Draws) -> Problem:
    """4 to 8 GPUs of random types on random hosts, loaded beyond what they serve."""
    left, nodes = 4 + draws.below(5), []
    while left:
        size = min(left, 1 + draws.below(4))
        nodes.append([draws.pick(KINDS) for _ in range(size)])
        left -= size
    return Problem(
        cluster_of(*nodes, gbit_per_s=draws.pick((5.0, 10.0, 40.0))),
        model_preset(draws.pick(("llama-7b", "opt-13b", "llama-3.1-8b"))),
        workload_preset(draws.pick(("azure-conv", "azure-code"))).with_rate(
            draws.pick((4.0, 40.0))
        ),
        Slo(2.0, 0.15),
        EngineLimits(phases=draws.pick((ALL, SPLIT))),
        objective=draws.pick(tuple(Objective)),
    )


def sized_problem(gpus: int, objective: Objective) -> Problem:
    """The paper's kinds of hosts, as many as make so many GPUs, loaded beyond what they serve."""
    hosts = [[KINDS[i % len(KINDS)]] * 4 for i in range(gpus // 4)]
    return Problem(
        cluster_of(*hosts, gbit_per_s=40.0),
        model_preset("llama-30b"),
        workload_preset("azure-conv").with_rate(gpus / 2),
        Slo(3.0, 0.15),
        objective=objective,
    )


def measured(
    problem: Problem, seed: int, proof_s: float, settings: SearchSettings | None = None
) -> tuple[Certificate, float, float]:
    """The certificate of the search's plan, with CPU seconds of the search and of the proof."""
    clock = time.process_time
    began = clock()
    plan = solve(problem, seed=seed, clock=time.monotonic, settings=settings)
    searched = clock()
    found = certify(problem, plan, clock=clock, time_budget_s=proof_s)
    return found, searched - began, clock() - searched


def small(clusters: int, settings: SearchSettings) -> dict[str, float]:
    """Random small clusters; how far it is, is said on stderr."""
    draws = Draws(1)
    problems = [random_problem(draws) for _ in range(clusters)]
    results = []
    for seed, problem in enumerate(problems):
        results.append(measured(problem, seed, CERTIFY_BUDGET_S, settings))
        print(f"{seed + 1}: {results[-1][0].gap_ratio:.4f}", file=sys.stderr, flush=True)
    gaps = [found.gap_ratio for found, _, _ in results]
    return {
        "small_clusters": len(gaps),
        "small_without_gap": sum(gap <= WITHOUT_GAP for gap in gaps),
        "small_exact": sum(found.method == "exact" for found, _, _ in results),
        "small_gap_mean_ratio": sum(gaps) / len(gaps),
        "small_gap_worst_ratio": max(gaps),
        "small_search_cpu_s": sum(search for _, search, _ in results) / len(gaps),
        "small_proof_cpu_mean_s": sum(proof for _, _, proof in results) / len(gaps),
        "small_proof_cpu_worst_s": max(proof for _, _, proof in results),
    }


def sized(gpus: int, proof_s: float) -> dict[str, float | str]:
    """The paper's hosts in number."""
    figures: dict[str, float | str] = {}
    for objective in Objective:
        found, search, proof = measured(sized_problem(gpus, objective), 0, proof_s)
        name = f"{gpus}_gpus_{objective}"
        figures[f"{name}_method"] = found.method
        figures[f"{name}_gap_ratio"] = found.gap_ratio
        figures[f"{name}_search_cpu_s"] = search
        figures[f"{name}_proof_cpu_s"] = proof
    return figures


def draw(path: Path, sizes: Sequence[int], figures: Mapping[str, float | str]) -> None:
    """Gaps as clusters grow."""
    from thunderserve.cli.planning.charts import Line, draw_lines  # noqa: PLC0415 - an extra

    lines = [
        Line(
            f"for {objective}",
            tuple(
                (gpus, 100 * float(figures[f"{gpus}_gpus_{objective}_gap_ratio"])) for gpus in sizes
            ),
        )
        for objective in Objective
    ]
    draw_lines(
        path,
        lines,
        title="What the search's plan may miss of the best",
        x_label="GPUs",
        y_label="gap to the proven bound, %",
        log_x=True,
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--search-alone", action="store_true", help="without the proven optimum")
    parser.add_argument("--sizes", default="8,16,32,64,128")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--proof-s", type=float, default=CERTIFY_BUDGET_S)
    parser.add_argument("--figure", type=Path, help="a PNG file: gaps as clusters grow")
    given = parser.parse_args()
    figures: dict[str, float | str] = {"machine": platform.machine()}
    if given.clusters:
        figures |= small(given.clusters, SearchSettings(proves_small=not given.search_alone))
    sizes = [int(gpus) for gpus in filter(None, given.sizes.split(","))]
    for gpus in sizes:
        figures |= sized(gpus, given.proof_s)
    if given.figure:
        draw(given.figure, sizes, figures)
    if given.output == "json":
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:32} {figure:.4g}" if isinstance(figure, float) else f"{name:32} {figure}")


if __name__ == "__main__":
    main()
