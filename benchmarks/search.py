"""How good the plans of the search are, how fast it finds them, and what else would find.

    .venv/bin/python benchmarks/search.py [-o json] [--clusters 30] [--first 1000] [--scale 1024]
    .venv/bin/python benchmarks/search.py --no-preset --clusters 0 --scale 512

Preset: `paper-cloud-32` with LLaMA-30B, both objectives, at the workload's rate and at 2.5 times
it; the best plan is proven by the certificate. Controls: equal numbers of solved flows on drawn
clusters of 16 to 48 mixed GPUs, on none of which the search was tuned; shares of the best score
that any of them found, and how much more tabu has than each other one on the same clusters, with
95 % intervals. `climbed`: as the product searches, from starts that were climbed by the estimate,
neighbours ranked by it; `blind`: from the first start as it is, through random neighbours. Scale:
the preset's mix repeated, and random nodes of one type each. CPU seconds of one process.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from search_controls import METHODS, Task

from thunderserve.control.planner.certificate import best_of
from thunderserve.control.planner.flow import Evaluator
from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import Objective, Problem
from thunderserve.control.planner.search import SearchSpace
from thunderserve.control.planner.solve import SearchReport, solve_reported
from thunderserve.core.catalogue import catalogue
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, Link, Node
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Gpu
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from thunderserve.control.planner.search import Layout

KINDS = ("A40", "A6000", "A5000", "3090Ti")
RATES = (1.0, 2.5)
MIXED_GPUS = (16, 24, 32, 48)
T_95 = 2.04
"""Student's for thirty clusters; a little wide for more."""
TIE = 1e-4
EVALUATIONS, SAMPLES, CLIMBED = 200, 200, 8
ANYTIME = (1, 10, 50, 100, 200)
SCALES = (64, 128, 256, 512, 1024)
BLIND = 12

Figures = dict[str, float | str]


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--clusters", type=int, default=30, help="for the controls, at least 2")
    parser.add_argument("--first", type=int, default=1000, help="seed of the first of them")
    parser.add_argument("--no-preset", action="store_true", help="only what else is asked")
    parser.add_argument("--scale", type=int, default=0, help="GPUs of the largest cluster")
    given = parser.parse_args()
    figures: Figures = {}
    for found in measured(given):
        figures |= found
        if given.output == "table":
            for name, value in found.items():
                shown = value if isinstance(value, str) else format(value, "10.4f")
                print(f"{name:52} {shown}", flush=True)
    if given.output == "json":
        print(json.dumps(figures))


def measured(given: argparse.Namespace) -> Iterator[Figures]:
    """What is asked for, part by part: all of it takes minutes."""
    yield {"machine": f"{platform.machine()}, one process"}
    if not given.no_preset:
        yield preset_figures()
    for way in ("blind", "climbed") if given.clusters else ():
        yield control_figures(given.first, given.clusters, way)
    for gpus in (size for size in SCALES if size <= given.scale):
        yield scale_figures(gpus)


def problem_of(cluster: Cluster, workload: str, factor: float, objective: Objective) -> Problem:
    """LLaMA-30B on the cluster, at so many times the workload's own rate."""
    preset = workload_preset(workload)
    return Problem(
        cluster,
        model_preset("llama-30b"),
        preset.with_rate(preset.rate_rps * factor),
        Slo(ttft_s=3.0, tpot_s=0.15),
        objective=objective,
    )


def searched(problem: Problem) -> tuple[SearchReport, float]:
    """How the search went, and its CPU seconds."""
    began_s = time.process_time()
    found = solve_reported(problem, clock=time.monotonic)
    return found.report, time.process_time() - began_s


def preset_figures() -> Figures:
    """The paper's cluster: shares of the proven best."""
    figures: Figures = {}
    cluster = cluster_preset("paper-cloud-32")
    shares, seconds = [], []
    for workload in ("azure-conv", "azure-code"):
        for objective in Objective:
            for factor in RATES if objective is Objective.GOODPUT else RATES[:1]:
                problem = problem_of(cluster, workload, factor, objective)
                report, spent_s = searched(problem)
                evaluator = Evaluator(problem)
                best = evaluator.assess(best_of(evaluator).seats).score
                name = f"{workload}_{objective}_x{factor:g}"
                figures[f"{name}_cpu_s"] = spent_s
                figures[f"{name}_evaluations"] = report.evaluations
                figures[f"{name}_x_best"] = report.score / best
                figures |= {
                    f"{name}_x_best_after_{most}": _by(report, most) / best for most in ANYTIME
                }
                shares.append(report.score / best)
                seconds.append(spent_s)
    return figures | {"preset_worst_x_best": min(shares), "preset_most_cpu_s": max(seconds)}


def _by(report: SearchReport, evaluations: int) -> float:
    return max((score for at, score in report.progress if at <= evaluations), default=0.0)


def control_figures(first: int, clusters: int, way: str) -> Figures:
    """Tabu beside the others on the same clusters: mean differences with their 95 % intervals."""
    figures: Figures = {}
    climbed = way == "climbed"
    shares: dict[str, list[float]] = {name: [] for name in METHODS}
    for seed in range(first, first + clusters):
        problem = drawn_problem(seed)
        starts = starts_of(problem, seed, climbed=climbed)
        scores = {name: run(name, problem, seed, starts, climbed=climbed).best for name in METHODS}
        best = max(scores.values())
        for name, score in scores.items():
            shares[name].append(score / best)
        _say_shares(f"{way} {seed}", {name: found[-1] for name, found in shares.items()})
    for name, found in shares.items():
        figures[f"{way}_{name}_mean_x_best"] = fmean(found)
        figures[f"{way}_{name}_worst_x_best"] = min(found)
        if name != "tabu":
            figures |= paired(f"{way}_tabu_less_{name}", shares["tabu"], found)
    return figures


def _say_shares(title: str, shares: Mapping[str, float]) -> None:
    """What one cluster gave, as it comes: all of them take minutes."""
    told = "  ".join(f"{name} {share:.4f}" for name, share in shares.items())
    print(f"{title:14} {told}  {time.process_time():.0f} CPU s", file=sys.stderr, flush=True)


def drawn_problem(seed: int) -> Problem:
    """A cluster of 16 to 48 mixed GPUs with a workload, an objective and a load, all drawn."""
    draws = Draws(seed)
    gpus = draws.pick(MIXED_GPUS)
    return problem_of(
        mixed_cluster(gpus, draws),
        draws.pick(("azure-conv", "azure-code")),
        draws.pick((1.0, 2.5)) * gpus / 32,
        draws.pick(tuple(Objective)),
    )


def paired(name: str, ones: Sequence[float], others: Sequence[float]) -> Figures:
    """The mean difference with its 95 % interval, and on how many clusters either is better."""
    differences = [one - other for one, other in zip(ones, others, strict=True)]
    half = T_95 * stdev(differences) / sqrt(len(differences))
    return {
        f"{name}_mean": fmean(differences),
        f"{name}_low": fmean(differences) - half,
        f"{name}_high": fmean(differences) + half,
        f"{name}_better_on": sum(each > TIE for each in differences),
        f"{name}_worse_on": sum(each < -TIE for each in differences),
    }


@dataclass(slots=True)
class Counted:
    """A search's score function, with what was best and how much was spent."""

    space: SearchSpace
    best: float = 0.0

    def score(self, state: Layout) -> float:
        """The state's score."""
        score = self.space.score(state)
        self.best = max(self.best, score)
        return score

    def spent(self) -> float:
        """Share of the flows."""
        return self.space.evaluator.flows_solved / EVALUATIONS


def starts_of(problem: Problem, seed: int, *, climbed: bool) -> list[Layout]:
    """Where every method begins."""
    space = SearchSpace(problem, Draws(seed), samples=SAMPLES)
    starts = space.starts()
    return list(dict.fromkeys(map(space.climbed, starts[:CLIMBED]))) if climbed else starts


def run(
    method: str, problem: Problem, seed: int, starts: Sequence[Layout], *, climbed: bool
) -> Counted:
    """One method's search; that it looks at climbed starts is counted."""
    draws = Draws(seed)
    space = SearchSpace(problem, draws, samples=SAMPLES)
    counted = Counted(space)

    def blind(state: Layout) -> list[Layout]:
        around = space.neighbours(state)
        return [draws.pick(around) for _ in range(min(len(around), BLIND))]

    ordered = sorted(starts, key=counted.score, reverse=True) if climbed else list(starts)
    METHODS[method](
        Task(
            starts=ordered,
            neighbours=space.neighbours if climbed else blind,
            score=counted.score,
            spent=counted.spent,
            draws=draws,
        )
    )
    return counted


def scale_figures(gpus: int) -> Figures:
    """Large clusters; shares of a bound where the nodes are few kinds."""
    figures: Figures = {}
    clusters = (repeated_mix(gpus), random_hosts(gpus), mixed_cluster(gpus, Draws(gpus)))
    for name, cluster in zip(("mix", "random", "mixed"), clusters, strict=True):
        problem = problem_of(cluster, "azure-conv", 2.5 * gpus / 32, Objective.GOODPUT)
        report, spent_s = searched(problem)
        figures[f"{name}_{gpus}_cpu_s"] = spent_s
        figures[f"{name}_{gpus}_evaluations"] = report.evaluations
        figures[f"{name}_{gpus}_score_rps"] = report.score
    return figures


def repeated_mix(gpus: int) -> Cluster:
    """The paper's hosts, again and again."""
    paper = cluster_preset("paper-cloud-32")
    hosts = [paper.nodes[i % len(paper.nodes)] for i in range(gpus // 4)]
    nodes = [
        replace(host, id=f"n{i}", gpus=tuple(Gpu(f"n{i}/{g}", host.gpus[0].type) for g in range(4)))
        for i, host in enumerate(hosts)
    ]
    return Cluster(tuple(nodes), paper.types)


def random_hosts(gpus: int) -> Cluster:
    """Hosts of 1 to 8 GPUs of one type, behind ports of 10 to 100 Gbit/s."""
    draws = Draws(gpus)
    return _cluster(draws, gpus, lambda size: [draws.pick(KINDS)] * size)


def mixed_cluster(gpus: int, draws: Draws) -> Cluster:
    """The same, but some hosts hold several types."""

    def kinds(size: int) -> list[str]:
        one, other = draws.pick(KINDS), draws.pick(KINDS)
        half = size // 2 if draws.below(3) == 0 else 0
        return [one] * (size - half) + [other] * half

    return _cluster(draws, gpus, kinds)


def _cluster(draws: Draws, gpus: int, kinds_of: Callable[[int], Sequence[str]]) -> Cluster:
    types = catalogue("paper_table1")
    nodes: list[Node] = []
    while gpus:
        size = min(gpus, draws.pick((1, 2, 4, 4, 8)))
        kinds = kinds_of(size)
        name = f"n{len(nodes)}"
        local = Link(min(types.get(kind).local_bytes_per_s for kind in kinds), 1e-5)
        network = Link(draws.pick((10, 40, 100)) * GIGABIT_PER_S, 1e-4)
        held = tuple(Gpu(f"{name}/{i}", kind) for i, kind in enumerate(kinds))
        nodes.append(Node(name, held, local, network))
        gpus -= size
    return Cluster(tuple(nodes), tuple(types.get(kind) for kind in KINDS))


if __name__ == "__main__":
    main()
