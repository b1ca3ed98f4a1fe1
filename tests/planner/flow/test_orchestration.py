"""The flow fills what is there, spreads over equals, and never more than fits."""

from __future__ import annotations

from dataclasses import replace

import pulp
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.flow.flow import Flow, FlowProblem, Pair, Station
from thunderserve.control.planner.flow.orchestration import (
    IDLENESS,
    PHASE_IDLENESS,
    SERVED,
    SMALLEST,
    solve_flow,
)
from thunderserve.control.planner.flow.symmetry import symmetric_pairs
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

NO_LIMIT_RPS = 1e6


def four_by_five(prefill_rps: float, decode_rps: float) -> FlowProblem:
    """Four prefill and five decode groups; each of the 20 pairs attains something else."""
    stations = [Station(f"p{i}", Phase.PREFILL, prefill_rps) for i in range(4)]
    stations += [Station(f"d{j}", Phase.DECODE, decode_rps) for j in range(5)]
    pairs = [
        Pair(f"p{i}", f"d{j}", 0.98 - 0.01 * (7 * (5 * i + j) % 20))
        for i in range(4)
        for j in range(5)
    ]
    return FlowProblem(10.0, tuple(stations), tuple(pairs))


def used(flow: Flow) -> int:
    return sum(rps > 1e-9 for rps in flow.rps)


def test_flow_collapses_to_one_route_when_nothing_is_limited() -> None:
    flow = solve_flow(four_by_five(NO_LIMIT_RPS, NO_LIMIT_RPS))
    assert used(flow) == 1
    assert flow.attained_rps == pytest.approx(10 * 0.98)


def test_flow_spreads_when_groups_have_capacities() -> None:
    flow = solve_flow(four_by_five(4.0, 2.5))
    assert used(flow) >= 5
    assert flow.served_rps == pytest.approx(10.0)
    assert flow.attained_rps < 10 * 0.98


def test_flow_uses_more_routes_as_demand_grows() -> None:
    supports = [
        used(solve_flow(replace(four_by_five(4.0, 2.5), demand_rps=demand)))
        for demand in (1.0, 5.0, 12.0)
    ]
    assert supports == sorted(supports)
    assert supports[0] < supports[-1]


def test_flow_leaves_a_group_whose_requests_begin_to_miss() -> None:
    """The better pair is used up to where it loses as much as the other costs."""
    eager = Station("p0", Phase.PREFILL, 10.0, losses=((0.5, 0.5 * 4.0),))
    problem = FlowProblem(
        8.0,
        (eager, Station("p1", Phase.PREFILL, 10.0), Station("d", Phase.DECODE, 100.0)),
        (Pair("p0", "d", 1.0), Pair("p1", "d", 0.9)),
    )
    flow = solve_flow(problem)
    assert flow.rps == pytest.approx((4.0, 4.0))
    assert flow.attained_rps == pytest.approx(4.0 + 0.9 * 4.0)


def test_flow_respects_a_node_s_port() -> None:
    """A local pair takes what the port cannot carry."""
    problem = FlowProblem(
        10.0,
        (
            Station("p", Phase.PREFILL, 100.0),
            Station("near", Phase.DECODE, 100.0),
            Station("far", Phase.DECODE, 100.0),
        ),
        (Pair("p", "near", 0.8), Pair("p", "far", 1.0, (("n0 out", 2e8), ("n1 in", 2e8)))),
        {"n0 out": 1e9, "n1 in": 4e8},
    )
    flow = solve_flow(problem)
    assert flow.rps == pytest.approx((8.0, 2.0))


def test_demand_beyond_capacity_is_left_over() -> None:
    flow = solve_flow(replace(four_by_five(4.0, 2.5), demand_rps=1e6))
    assert flow.served_rps == pytest.approx(12.5)
    assert flow.fullest_ratio == pytest.approx(1.0)


def test_flow_is_zero_when_no_pair_is_usable() -> None:
    stations = (Station("p", Phase.PREFILL, 0.0), Station("d", Phase.DECODE, 1.0))
    assert solve_flow(FlowProblem(1.0, stations, (Pair("p", "d"),))) == Flow((0.0,))
    assert solve_flow(FlowProblem(1.0, stations, ())) == Flow(())


def test_unequal_groups_share_in_proportion_to_their_capacity() -> None:
    stations = (
        Station("p", Phase.PREFILL, 50.0),
        Station("big", Phase.DECODE, 3.0),
        Station("small", Phase.DECODE, 1.0),
    )
    pairs = (Pair("p", "big"), Pair("p", "small"))
    for demand in (1e-3, 1.0, 1e5):
        flow = solve_flow(FlowProblem(demand, stations, pairs))
        assert flow.rps[0] / flow.served_rps == pytest.approx(0.75)


@pytest.mark.parametrize("demand", [1e-6, 1.0, 1e6])
def test_somebody_is_served_however_unequal_the_groups(demand: float) -> None:
    """Each route leads through a group that is a millionth of the others."""
    stations = (
        Station("p", Phase.PREFILL, 1e4),
        Station("d", Phase.DECODE, 1e-2),
        Station("q", Phase.PREFILL, 1e-2),
        Station("e", Phase.DECODE, 1e4),
    )
    problem = FlowProblem(demand, stations, (Pair("p", "d"), Pair("q", "e")))
    flow = solve_flow(problem)
    assert flow.served_rps == pytest.approx(min(demand, 2e-2), rel=1e-3)
    assert flow.rps[0] == pytest.approx(flow.rps[1], rel=1e-3)


def test_colocated_groups_share_with_split_ones() -> None:
    stations = (
        Station("p", Phase.PREFILL, 2.0),
        Station("d", Phase.DECODE, 5.0),
        Station("c", Phase.COLOCATED, 2.0),
    )
    flow = solve_flow(FlowProblem(1.0, stations, (Pair("p", "d"), Pair("c", "c"))))
    assert flow.rps == pytest.approx((0.5, 0.5))


def test_symmetry_is_seen_through_ports_and_broken_by_them() -> None:
    """Two nodes with one prefill and one decode group each: local pairs differ from remote ones."""
    stations = tuple(
        Station(f"{kind}{i}", phase, 5.0)
        for i in range(2)
        for kind, phase in (("p", Phase.PREFILL), ("d", Phase.DECODE))
    )
    ports = {f"n{i} {way}": 1e9 for i in range(2) for way in ("out", "in")}

    def sent(start: int, end: int) -> tuple[tuple[str, float], ...]:
        return () if start == end else ((f"n{start} out", 1e8), (f"n{end} in", 1e8))

    pairs = tuple(Pair(f"p{i}", f"d{j}", 1.0, sent(i, j)) for i in range(2) for j in range(2))
    problem = FlowProblem(4.0, stations, pairs, ports)
    orbits = symmetric_pairs(problem, range(4))
    assert sorted(orbits) == [[0, 3], [1, 2]]


def test_demand_must_be_positive() -> None:
    with pytest.raises(InvalidArgumentError, match="demand_rps is 0"):
        FlowProblem(0.0, (), ())


@st.composite
def flow_problems(draw: st.DrawFn) -> FlowProblem:
    """Few values, so that groups are often equal."""
    capacities = st.sampled_from([0.0, 1.0, 2.0, 5.0])
    losses = st.sampled_from([(), ((0.4, 0.4),), ((0.2, 0.1), (0.9, 1.2))])
    stations = [
        Station(f"{phase}{i}", phase, draw(capacities), draw(losses))
        for phase, count in (
            (Phase.PREFILL, draw(st.integers(1, 3))),
            (Phase.DECODE, draw(st.integers(1, 4))),
            (Phase.COLOCATED, draw(st.integers(0, 2))),
        )
        for i in range(count)
    ]
    by_phase = {phase: [s.id for s in stations if s.phase is phase] for phase in Phase}
    ratios = st.sampled_from([0.0, 0.5, 0.9, 1.0])
    bytes_sent = st.sampled_from([(), (("out", 1.0),), (("out", 1.0), ("in", 2.0))])
    pairs = [
        Pair(p, d, draw(ratios), draw(bytes_sent))
        for p in by_phase[Phase.PREFILL]
        for d in by_phase[Phase.DECODE]
        if draw(st.booleans())
    ]
    pairs += [Pair(c, c, draw(ratios)) for c in by_phase[Phase.COLOCATED]]
    ports = {"out": draw(st.sampled_from([0.5, 3.0])), "in": 4.0}
    demand = draw(st.sampled_from([0.01, 1.0, 4.0, 100.0]))
    return FlowProblem(demand, tuple(stations), tuple(pairs), ports)


def loads(problem: FlowProblem, flow: Flow) -> dict[str, float]:
    found = {station.id: 0.0 for station in problem.stations}
    for pair, rps in zip(problem.pairs, flow.rps, strict=True):
        for station in {pair.prefill, pair.decode}:
            found[station] += rps
    return found


def plain_score(problem: FlowProblem) -> float:
    """The same program, one variable per pair, without symmetry: the reference."""
    lp = pulp.LpProblem("plain", pulp.LpMaximize)
    usable = [station for station in problem.stations if station.capacity_rps > 0]
    ids = {station.id for station in usable}
    flows = [
        lp.add_variable(f"f{i}", 0, None if {p.prefill, p.decode} <= ids else 0)
        for i, p in enumerate(problem.pairs)
    ]
    most = problem.most_rps()
    scale = min(problem.demand_rps, most)
    fullest = {phase: lp.add_variable(f"u{phase}", 0) for phase in Phase}
    overall = lp.add_variable("u", 0)
    objective: pulp.LpAffineExpression = pulp.lpSum([])
    for station in usable:
        load = pulp.lpSum(
            flow
            for flow, pair in zip(flows, problem.pairs, strict=True)
            if station.id in {pair.prefill, pair.decode}
        )
        total = sum(each.capacity_rps for each in usable if each.phase is station.phase)
        lp += load <= station.capacity_rps
        lp += load <= scale * max(station.capacity_rps / most, SMALLEST) * overall
        share = max(station.capacity_rps / total, SMALLEST)
        lp += load <= scale * share * fullest[station.phase]
        loss = lp.add_variable(f"loss_{station.id}", 0)
        for slope, offset in station.losses:
            lp += loss >= slope * load - offset
        objective -= loss
    for phase in Phase:
        objective -= scale * PHASE_IDLENESS * fullest[phase]
    objective -= scale * IDLENESS * overall
    priced = list(zip(flows, problem.pairs, strict=True))
    for port, capacity in problem.ports.items():
        lp += pulp.lpSum(f * dict(p.bytes).get(port, 0.0) for f, p in priced) <= capacity
    lp += pulp.lpSum(flows) <= problem.demand_rps
    lp += objective + pulp.lpSum(f * (p.attainment_ratio + SERVED) for f, p in priced)
    lp.solve(pulp.HiGHS(msg=False))
    return float(lp.objective.value())


@given(flow_problems())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_flow_stays_within_every_capacity(problem: FlowProblem) -> None:
    flow = solve_flow(problem)
    assert min(flow.rps, default=0.0) >= 0
    assert flow.served_rps <= min(problem.demand_rps, problem.most_rps()) * (1 + 1e-6)
    for station in problem.stations:
        assert loads(problem, flow)[station.id] <= station.capacity_rps * (1 + 1e-6)
    for port, capacity in problem.ports.items():
        sent = sum(
            rps * dict(pair.bytes).get(port, 0.0)
            for pair, rps in zip(problem.pairs, flow.rps, strict=True)
        )
        assert sent <= capacity * (1 + 1e-6)
    assert flow.attained_rps <= flow.served_rps * (1 + 1e-6)


@given(flow_problems())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_symmetry_costs_nothing(problem: FlowProblem) -> None:
    """One variable for each orbit finds what one for each pair finds."""
    assume(problem.most_rps() > 0)
    expected = plain_score(problem)
    assert solve_flow(problem).score == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(flow_problems(), st.integers(0, 8))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_more_capacity_never_attains_less(problem: FlowProblem, which: int) -> None:
    at = which % len(problem.stations)
    grown = tuple(
        replace(station, capacity_rps=station.capacity_rps + 1.0) if i == at else station
        for i, station in enumerate(problem.stations)
    )
    before, after = solve_flow(problem), solve_flow(replace(problem, stations=grown))
    slack = 2 * (IDLENESS + 3 * PHASE_IDLENESS + SERVED) * problem.demand_rps
    assert after.attained_rps >= before.attained_rps - slack


@given(flow_problems())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_flow_does_not_depend_on_names(problem: FlowProblem) -> None:
    names = {station.id: f"x{i}" for i, station in enumerate(problem.stations)}
    renamed = replace(
        problem,
        stations=tuple(replace(s, id=names[s.id]) for s in problem.stations),
        pairs=tuple(
            replace(p, prefill=names[p.prefill], decode=names[p.decode]) for p in problem.pairs
        ),
    )
    assert solve_flow(renamed) == solve_flow(problem)
