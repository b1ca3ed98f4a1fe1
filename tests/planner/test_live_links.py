"""Measured links take the place of assumed ones, and plans follow them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_fakes import make_link, make_worker
from hypothesis import given
from hypothesis import strategies as st

from thunderserve.control.planner.live import NOMINAL_NETWORK, plan_workers, route_workers
from thunderserve.control.planner.live_links import with_measured_links
from thunderserve.core.cost import Efficiency
from thunderserve.core.hardware import Cluster, GpuType, Link, Node
from thunderserve.core.links import LinkMethod, MeasuredLink
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Gpu, Phase
from thunderserve.core.slo import Slo
from thunderserve.core.workload import Workload

CHAT = Workload.from_means(rate_rps=5.0, prompt_tokens=200, output_tokens=100)
RATIO = Efficiency().link_ratio
PORT = Link(1e9, 1e-4)
LLAMA = model_preset("llama-30b")
WORKERS = [replace(make_worker(f"g{i}"), gpus=(Gpu(f"n-g{i}/0", "A40"),)) for i in range(3)]
PHASES = {"g0": Phase.PREFILL, "g1": Phase.DECODE, "g2": Phase.DECODE}
SOON = Slo(ttft_s=5.0, tpot_s=0.5)


def cluster(count: int = 3) -> Cluster:
    kind = GpuType("A40", 150.0, 7e11, 48e9)
    nodes = [Node(f"n-g{i}", (Gpu(f"n-g{i}/0", "A40"),), Link(3e10), PORT) for i in range(count)]
    return Cluster(tuple(nodes), (kind,))


def measured(
    start: int, end: int, bytes_per_s: float, method: LinkMethod = LinkMethod.TRAFFIC
) -> MeasuredLink:
    link = make_link(f"g{end}:7400", bytes_per_s, method)
    return MeasuredLink(f"g{start}", f"g{end}", f"n-g{start}", f"n-g{end}", link)


def test_links_fall_back_to_ports_when_a_pair_was_not_measured() -> None:
    """One slow pair is slow, the others are what was assumed."""
    seen = with_measured_links(cluster(), [measured(0, 1, 1e8)])
    assert seen.link("n-g0", "n-g1").bytes_per_s == pytest.approx(1e8 / RATIO)
    assert seen.link("n-g0", "n-g2") == seen.link("n-g1", "n-g2") == PORT


def test_port_is_as_slow_as_its_links_when_all_were_measured() -> None:
    """A host behind a slow port shares it between its links."""
    seen = with_measured_links(cluster(), [measured(0, 1, 1e8), measured(2, 0, 2e8)])
    assert seen.node("n-g0").network.bytes_per_s == pytest.approx(2e8 / RATIO)
    assert seen.node("n-g1").network == PORT


def test_traffic_counts_before_a_probe_and_the_slower_direction_counts() -> None:
    """A probe of a few megabytes cannot fill a long link."""
    probe = measured(0, 1, 9e8, LinkMethod.PROBE)
    seen = with_measured_links(cluster(), [probe, measured(0, 1, 3e8), measured(1, 0, 2e8)])
    assert seen.link("n-g0", "n-g1").bytes_per_s == pytest.approx(2e8 / RATIO)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 2, st.floats(1e3, 1e12)), max_size=12))
def test_any_measurements_make_a_cluster(found: list[tuple[int, int, float]]) -> None:
    """Within a node, of strangers, several of one pair: none of it breaks the cluster."""
    seen = with_measured_links(cluster(), [measured(*each) for each in found])
    rates = {each[2] / RATIO for each in found} | {PORT.bytes_per_s}
    assert {link.bytes_per_s for _, _, link in seen.links} <= rates


def test_plan_routes_around_a_link_when_it_is_measured_slow() -> None:
    """Of two equal decode groups the one behind a slow link loses nearly all of its share."""
    workers, phases = WORKERS, PHASES
    slow = [measured(0, 1, 2e6), measured(0, 2, 1e9)]
    settings = {"model": LLAMA, "workload": CHAT.with_rate(1.0), "slo": SOON}

    even = {r.decode: r.weight for r in route_workers(workers, phases, **settings)}
    moved = {r.decode: r.weight for r in route_workers(workers, phases, links=slow, **settings)}
    plan = plan_workers(workers, phases, keep_phases=True, links=slow, **settings)

    assert even == pytest.approx({"g1": 0.5, "g2": 0.5})
    assert moved.get("g1", 0.0) < 0.1
    assert {r.decode: r.weight for r in plan.routes} == pytest.approx(moved)


def test_nothing_changes_when_links_are_as_fast_as_was_assumed() -> None:
    """What is assumed is a measurement that nobody made."""
    workers, phases = WORKERS, PHASES
    as_assumed = NOMINAL_NETWORK.bytes_per_s * RATIO
    links = [measured(0, 1, as_assumed), measured(0, 2, as_assumed)]
    plain = route_workers(workers, phases, model=LLAMA, workload=CHAT)
    assert route_workers(workers, phases, model=LLAMA, workload=CHAT, links=links) == plain
