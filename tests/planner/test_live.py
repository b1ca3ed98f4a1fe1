"""Over live workers the planner always answers, fairly, within what their engines can do."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.live import group_of, plan_workers, route_workers
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.fleet import Capabilities, Worker
from thunderserve.core.model import ModelSpec, model_preset
from thunderserve.core.plan import WEIGHT_TOLERANCE, Gpu, Phase, Route
from thunderserve.core.workload import Workload

DEMO = ModelSpec("demo", 8, 256, 4, 2, 64, 704, 4096, tied_embeddings=True)
CHAT = Workload.from_means(rate_rps=5.0, prompt_tokens=200, output_tokens=100)
PROMPTS = Workload.from_means(rate_rps=5.0, prompt_tokens=1500, output_tokens=2)
PHASES = {"P": Phase.PREFILL, "D": Phase.DECODE, "C": Phase.COLOCATED}


def worker(
    name: str,
    *,
    node: str = "n0",
    kind: str = "CPU",
    tp: int = 1,
    pp: int = 1,
    flippable: bool = True,
    phases: tuple[Phase, ...] = tuple(Phase),
) -> Worker:
    gpus = tuple(Gpu(f"{node}/{int(name[1:]) * 10 + i}", kind) for i in range(tp * pp))
    able = Capabilities(phases, flippable, tp, pp, "bfloat16", 16, 2048)
    return Worker(name, node, gpus, "i", "127.0.0.1:1", "127.0.0.1:2", "demo", able)


def fleet(letters: str, **options: Any) -> tuple[list[Worker], dict[str, Phase]]:
    workers = [worker(f"g{i}", **options) for i in range(len(letters))]
    return workers, {f"g{i}": PHASES[letter] for i, letter in enumerate(letters)}


def shares(routes: tuple[Route, ...]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for route in routes:
        for end in {route.prefill, route.decode}:
            found[end] += route.weight
    return dict(found)


@pytest.mark.parametrize("rate_rps", [1e-4, 5.0, 1e7])
@pytest.mark.parametrize("letters", ["PD", "PDD", "PPD", "PPDD", "PPPDDDDD"])
def test_equal_groups_get_equal_weights_at_any_load(letters: str, rate_rps: float) -> None:
    workers, phases = fleet(letters)
    routes = route_workers(workers, phases, model=DEMO, workload=CHAT.with_rate(rate_rps))
    pairs = letters.count("P") * letters.count("D")
    assert [route.weight for route in routes] == pytest.approx([1 / pairs] * pairs)


def test_a_faster_group_gets_more() -> None:
    workers = [worker("g0"), worker("g1", kind="A40"), worker("g2", kind="A5000")]
    phases = {"g0": Phase.PREFILL, "g1": Phase.DECODE, "g2": Phase.DECODE}
    for rate_rps in (1e-3, 1e7):
        routes = route_workers(workers, phases, model=DEMO, workload=CHAT.with_rate(rate_rps))
        found = shares(routes)
        assert found["g0"] == pytest.approx(1.0)
        assert found["g2"] > 0.3
        assert found["g1"] + found["g2"] == pytest.approx(1.0)
        assert found["g1"] != pytest.approx(found["g2"])


@pytest.mark.parametrize("letters", ["", "P", "D", "PP", "DDD"])
def test_there_are_no_routes_when_nobody_can_serve(letters: str) -> None:
    workers, phases = fleet(letters)
    assert route_workers(workers, phases, model=DEMO, workload=CHAT) == ()
    kept = plan_workers(workers, phases, model=DEMO, workload=CHAT, keep_phases=True)
    assert kept.routes == ()
    assert len(kept.groups) == len(letters)


def test_workers_without_a_phase_take_no_part() -> None:
    workers, phases = fleet("PDD")
    del phases["g2"]
    routes = route_workers(workers, phases, model=DEMO, workload=CHAT)
    assert [(route.prefill, route.decode) for route in routes] == [("g0", "g1")]
    plan = plan_workers(workers, phases, model=DEMO, workload=CHAT)
    assert [group.id for group in plan.groups] == ["g0", "g1"]


def test_a_colocated_worker_serves_alone() -> None:
    workers, phases = fleet("C")
    routes = route_workers(workers, phases, model=DEMO, workload=CHAT)
    assert [(route.prefill, route.decode, route.weight) for route in routes] == [("g0", "g0", 1.0)]


def test_an_unknown_gpu_or_too_large_a_model_is_no_obstacle() -> None:
    """The worker runs, so the model fits, whatever the catalogue says."""
    workers = [worker("g0", kind="Quantum"), worker("g1", kind="3090")]
    phases = {"g0": Phase.PREFILL, "g1": Phase.DECODE}
    for model in (DEMO, model_preset("llama-3.3-70b")):
        routes = route_workers(workers, phases, model=model, workload=CHAT)
        assert [(route.prefill, route.decode, route.weight) for route in routes] == [
            ("g0", "g1", 1.0)
        ]


@pytest.mark.parametrize(
    ("kind", "priced"),
    [("A40", True), ("A30", False), ("Quantum", False), ("CPU", True)],
    ids=["known", "no-price", "unknown", "cpu"],
)
def test_plan_does_not_call_free_what_has_no_known_price(kind: str, *, priced: bool) -> None:
    workers = [worker("g0", kind="A40"), worker("g1", node="n1", kind=kind)]
    phases = {"g0": Phase.PREFILL, "g1": Phase.DECODE}
    predicted = plan_workers(workers, phases, model=DEMO, workload=CHAT).predicted
    assert predicted is not None
    assert (predicted.usd_per_hour is not None) == priced


@pytest.mark.parametrize("rate_rps", [0.01, 5.0, 1e6])
def test_plan_flips_what_the_workload_asks_for(rate_rps: float) -> None:
    workers, phases = fleet("PDDD")
    plan = plan_workers(workers, phases, model=DEMO, workload=PROMPTS.with_rate(rate_rps))
    assert [group.phase for group in plan.groups].count(Phase.PREFILL) == 3
    assert plan.groups[0].phase is Phase.PREFILL


def test_plan_brings_a_one_sided_fleet_into_service() -> None:
    workers, phases = fleet("PPP")
    for rate_rps in (0.01, 1e6):
        plan = plan_workers(workers, phases, model=DEMO, workload=CHAT.with_rate(rate_rps))
        assert {group.phase for group in plan.groups} == {Phase.PREFILL, Phase.DECODE}
        assert plan.routes


@pytest.mark.parametrize(
    "options",
    [
        {"flippable": False},
        {"phases": (Phase.DECODE, Phase.COLOCATED)},
        {"pp": 2},
    ],
    ids=["cannot flip", "cannot prefill", "two stages"],
)
def test_plan_flips_no_group_whose_engine_cannot(options: dict[str, Any]) -> None:
    workers, phases = fleet("PDDD", **options)
    plan = plan_workers(workers, phases, model=DEMO, workload=PROMPTS.with_rate(1e6))
    assert {group.id: group.phase for group in plan.groups} == phases


def test_plan_keeps_every_phase_when_asked_to() -> None:
    workers, phases = fleet("PDDD")
    plan = plan_workers(workers, phases, model=DEMO, workload=PROMPTS, keep_phases=True, seed=3)
    assert {group.id: group.phase for group in plan.groups} == phases
    assert plan.routes == route_workers(workers, phases, model=DEMO, workload=PROMPTS)
    assert (plan.epoch, plan.seed, plan.model) == (0, 3, "demo")


def test_plan_predicts_less_than_is_asked_when_the_load_is_too_high() -> None:
    workers, phases = fleet("PD")
    low = plan_workers(workers, phases, model=DEMO, workload=CHAT.with_rate(1.0)).predicted
    high = plan_workers(workers, phases, model=DEMO, workload=CHAT.with_rate(1e6)).predicted
    assert low is not None
    assert high is not None
    assert low.goodput_rps == pytest.approx(1.0)
    assert low.throughput_tokens_per_s == pytest.approx(100.0)
    assert 1.0 < high.goodput_rps < 1e5
    assert high.slo_attainment_ratio < 0.1
    assert low.ttft_p99_s < high.ttft_p99_s
    assert low.tpot_p99_s < high.tpot_p99_s


def test_group_of_spreads_layers_over_stages_as_the_engine_does() -> None:
    group = group_of(worker("g0", tp=2, pp=3), Phase.DECODE, DEMO)
    assert [stage.layers for stage in group.stages] == [3, 3, 2]
    assert [gpu.id for gpu in group.stages[1].gpus] == ["n0/2", "n0/3"]


@pytest.mark.parametrize(("tp", "pp", "field"), [(2, 1, "unequal_tp"), (1, 2, "unequal_pp")])
@pytest.mark.parametrize("able", [True, False])
def test_groups_of_unequal_degrees_are_routed_when_their_engines_exchange(
    tp: int, pp: int, field: str, *, able: bool
) -> None:
    pair = [worker("g0"), worker("g1", tp=tp, pp=pp)]
    told = [
        replace(each, capabilities=replace(each.capabilities, **{field: able})) for each in pair
    ]
    phases = {"g0": Phase.PREFILL, "g1": Phase.DECODE}
    routes = route_workers(told, phases, model=DEMO, workload=CHAT)
    assert [(route.prefill, route.decode) for route in routes] == ([("g0", "g1")] if able else [])


def test_group_of_refuses_gpus_that_are_not_tp_times_pp() -> None:
    able = Capabilities(tuple(Phase), True, 2, 1, "bfloat16", 16, 2048)  # noqa: FBT003 - flippable
    lone = Worker("g0", "n0", (Gpu("n0/0", "CPU"),), "i", "a:1", "b:1", "demo", able)
    with pytest.raises(InvalidArgumentError, match="tp 2 and pp 1, but has 1 GPUs"):
        group_of(lone, Phase.DECODE, DEMO)
    with pytest.raises(InvalidArgumentError, match="9 stages for 8 layers"):
        group_of(worker("g0", pp=9), Phase.DECODE, DEMO)


@given(
    members=st.lists(
        st.tuples(
            st.sampled_from("PDC"),
            st.sampled_from(["CPU", "A40", "3090", "nobody's"]),
            st.integers(0, 2),
            st.booleans(),
        ),
        max_size=6,
    ),
    rate_rps=st.sampled_from([1e-6, 1.0, 1e3, 1e9]),
    prompt_tokens=st.sampled_from([1, 500, 100_000]),
    output_tokens=st.sampled_from([1, 300]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_planner_always_answers(
    members: list[tuple[str, str, int, bool]],
    rate_rps: float,
    prompt_tokens: int,
    output_tokens: int,
) -> None:
    """Weights sum to 1 exactly when somebody can serve; the last of a phase never goes."""
    workers = [
        worker(f"g{i}", node=f"n{node}", kind=kind, flippable=flippable)
        for i, (_, kind, node, flippable) in enumerate(members)
    ]
    phases = {f"g{i}": PHASES[member[0]] for i, member in enumerate(members)}
    workload = Workload.from_means(
        rate_rps=rate_rps, prompt_tokens=prompt_tokens, output_tokens=output_tokens
    )
    present = set(phases.values())
    servable = Phase.COLOCATED in present or {Phase.PREFILL, Phase.DECODE} <= present

    routes = route_workers(workers, phases, model=DEMO, workload=workload)
    assert bool(routes) == servable
    plan = plan_workers(workers, phases, model=DEMO, workload=workload)
    assert bool(plan.routes) >= servable
    for found in (routes, plan.routes):
        if found:
            assert abs(sum(route.weight for route in found) - 1) <= WEIGHT_TOLERANCE
    again = plan_workers(workers, phases, model=DEMO, workload=workload)
    assert again == plan
