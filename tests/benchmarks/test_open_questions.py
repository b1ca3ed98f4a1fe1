"""The studies behind the page of open questions: their processes and programs."""

from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.flow.orchestration import solve_flow
from thunderserve.control.planner.presets import cluster_preset
from thunderserve.core.hardware import GIGABIT_PER_S

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CLOUD = cluster_preset("paper-cloud-32")


def script(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"bench_{name}", BENCHMARKS / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # where its dataclasses look for it
    found.loader.exec_module(module)
    return module


def test_congestion_is_the_same_for_the_same_seed() -> None:
    drifting = script("congestion").drifting
    first, again, other = (list(drifting(CLOUD, steps=5, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_congestion_drifts_between_its_bounds_in_bounded_steps() -> None:
    module = script("congestion")
    hour = list(module.drifting(CLOUD, steps=200, seed=3))
    ports = [[node.network.bytes_per_s / GIGABIT_PER_S for node in c.nodes] for c in hour]
    assert min(map(min, ports)) >= 1 - 1e-9
    assert min(map(min, ports)) < 1.5
    assert max(map(max, ports)) <= 40 + 1e-9
    assert max(map(max, ports)) > 30
    steps = [
        after / before
        for now, then in pairwise(ports)
        for before, after in zip(now, then, strict=True)
    ]
    assert max(steps) <= 2**1.5 + 1e-9
    assert min(steps) >= 2**-1.5 - 1e-9


def test_congestion_leaves_no_link_faster_than_its_ports() -> None:
    for cluster in script("congestion").drifting(CLOUD, steps=10, seed=0):
        assert len(cluster.links) == 8 * 7 / 2
        for first, second, link in cluster.links:
            ports = (cluster.node(first).network, cluster.node(second).network)
            assert link.bytes_per_s <= min(port.bytes_per_s for port in ports)


def test_congestion_makes_kept_routes_serve_less_than_new_ones() -> None:
    module = script("congestion")
    problem = module._problem("llama-30b", module.WireMode.INT4, 8.0)
    plan = module._solve(problem)
    cluster = list(module.drifting(CLOUD, steps=20, seed=0))[-1]
    congested = module.replace(problem, cluster=cluster)
    kept, routed = module._kept(congested, plan), module._routed(congested, plan)
    assert kept.goodput_rps < routed.goodput_rps
    assert kept.served_rps <= 8.0 + 1e-9
    assert sum(route.weight for route in kept.plan.routes) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def collapse() -> ModuleType:
    return script("collapse")


def test_the_program_without_rows_takes_one_route_at_any_load(collapse: ModuleType) -> None:
    for rate_rps in (0.5, 5.0, 50.0):
        flows = collapse.simple_flow(collapse.posed(rate_rps), limited=False)
        assert len(flows) == 32
        assert sum(flow > 1e-6 for flow in flows) == 1


def test_rows_make_the_support_grow_with_load_within_every_capacity(
    collapse: ModuleType,
) -> None:
    most_rps = collapse.posed(1.0).most_rps()
    used = []
    for load in (0.05, 0.5, 1.0):
        problem = collapse.posed(load * most_rps)
        flows = collapse.simple_flow(problem, limited=True)
        used.append(sum(flow > 1e-6 for flow in flows))
        for station in problem.stations:
            through = sum(
                flow
                for flow, pair in zip(flows, problem.pairs, strict=True)
                if station.id in pair.stations
            )
            assert through <= station.capacity_rps * (1 + 1e-6)
        for port, limit in problem.ports.items():
            sent = (
                flow * dict(pair.bytes).get(port, 0.0)
                for flow, pair in zip(flows, problem.pairs, strict=True)
            )
            assert sum(sent) <= limit * (1 + 1e-6)
    assert used[0] < used[1] < used[2]


def test_all_rows_serve_no_fewer_than_the_others_at_any_load(collapse: ModuleType) -> None:
    most_rps = collapse.posed(1.0).most_rps()
    for load in (0.2, 0.7):
        problem = collapse.posed(load * most_rps)
        ours = solve_flow(problem).attained_rps
        for limited in (False, True):
            _, ratio = collapse._judged(problem, collapse.simple_flow(problem, limited=limited))
            assert ours >= ratio * problem.demand_rps - 1e-6
