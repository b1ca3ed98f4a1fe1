"""What a group can do falls as its load rises, and never rises again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.figures import (
    BREAKPOINTS,
    DecodeFigures,
    GroupFigures,
    PrefillFigures,
    Transfer,
    decode_figures,
    decode_ratio,
    loss_lines,
    prefill_figures,
)
from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, StageHardware
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo
from thunderserve.core.workload import Lengths, Workload, workload_preset

COST = CostModel(model_preset("llama-30b"))
CONV = workload_preset("azure-conv")
REPLICA = (StageHardware(60, (catalogue("paper_table1").get("A40"),) * 2, Link(32e9)),)
LOOSE = Slo(100.0, 100.0)


def test_prefill_attains_everything_when_idle_and_the_bound_is_loose() -> None:
    figures = prefill_figures(COST, REPLICA, CONV)
    assert figures.ttft_ratio(0.0, 100.0) == 1.0
    assert figures.ttft_ratio(0.0, 0.0) == 0.0


def test_prefill_attains_the_share_of_prompts_that_are_short_enough_when_idle() -> None:
    figures = prefill_figures(COST, REPLICA, CONV)
    median = figures.latency_s[len(figures.latency_s) // 2]
    assert figures.ttft_ratio(0.0, median * 0.999) == pytest.approx(0.5)


def test_prefill_attains_ever_less_as_load_rises() -> None:
    figures = prefill_figures(COST, REPLICA, CONV)
    ratios = [figures.ttft_ratio(share * figures.capacity_rps, 3.0) for share in BREAKPOINTS]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] < ratios[0]
    assert figures.ttft_ratio(2 * figures.capacity_rps, 100.0) == 0.0


def test_the_wait_is_exact_for_exponential_service() -> None:
    """An M/M/1 queue waits longer than t with probability rho exp(-t (1 - rho) / mean)."""
    exponential = PrefillFigures(latency_s=(0.0,), mean_s=0.1, mean_square_s2=2 * 0.1**2)
    rng = random.Random(1)  # noqa: S311 - a simulation
    clock, free_at, late, arrivals = 0.0, 0.0, 0, 200_000
    for _ in range(arrivals):
        clock += rng.expovariate(7.0)
        late += free_at - clock > 0.4
        free_at = max(free_at, clock) + rng.expovariate(10.0)
    assert 1 - exponential.ttft_ratio(7.0, 0.4) == pytest.approx(late / arrivals, rel=0.1)


def test_decode_serves_more_at_larger_batches_but_slower() -> None:
    figures = decode_figures(COST, REPLICA, CONV, bound_s=1.0, max_batch=256)
    rates, steps = zip(*figures.curve, strict=True)
    assert list(rates) == sorted(rates)
    assert list(steps) == sorted(steps)
    assert figures.step_s(0.0) == steps[0]
    assert steps[0] < figures.step_s((rates[0] + rates[-1]) / 2) < steps[-1]
    assert figures.step_s(1e9) == steps[-1]


def test_decode_stops_at_the_bound_on_seconds_per_token() -> None:
    free = decode_figures(COST, REPLICA, CONV, bound_s=1.0, max_batch=256)
    bound_s = (free.curve[0][1] + free.curve[-1][1]) / 2
    bounded = decode_figures(COST, REPLICA, CONV, bound_s=bound_s, max_batch=256)
    assert 0 < bounded.capacity_rps < free.capacity_rps
    assert bounded.curve[-1][1] <= bound_s


def test_decode_stops_at_the_engine_s_batch() -> None:
    one = decode_figures(COST, REPLICA, CONV, bound_s=1.0, max_batch=1)
    assert len(one.curve) == 1


def test_a_group_that_cannot_hold_the_model_has_no_capacity() -> None:
    alone = (StageHardware(60, (catalogue("paper_table1").get("A40"),), Link(32e9)),)
    decode = decode_figures(COST, alone, CONV, bound_s=1.0, max_batch=256)
    prefill = prefill_figures(COST, alone, CONV)
    assert decode.capacity_rps == 0.0
    for phase in Phase:
        assert GroupFigures(phase, prefill, decode).capacity_rps == 0.0


def test_a_colocated_group_does_less_of_either() -> None:
    prefill = prefill_figures(COST, REPLICA, CONV)
    decode = decode_figures(COST, REPLICA, CONV, bound_s=1.0, max_batch=256)
    both = GroupFigures(Phase.COLOCATED, prefill, decode)
    assert both.capacity_rps < min(prefill.capacity_rps, decode.capacity_rps)
    load = both.capacity_rps / 2
    assert both.step_s(load) > GroupFigures(Phase.DECODE, prefill, decode).step_s(load)


def test_decode_ratio_counts_the_transfer_into_the_time_per_token() -> None:
    """1 s of transfer over 10 later tokens is 0.1 s per token."""
    workload = Workload.independent("one", 1.0, Lengths.constant(1000), Lengths.constant(11))
    transfer = Transfer(s_per_token=1e-3)
    assert decode_ratio(0.05, transfer, Slo(1.0, 0.1501), workload) == 1.0
    assert decode_ratio(0.05, transfer, Slo(1.0, 0.1499), workload) == 0.0


def test_decode_ratio_is_the_share_of_prompts_whose_transfer_is_short_enough() -> None:
    workload = Workload.independent(
        "four", 1.0, Lengths((100, 200, 300, 400)), Lengths.constant(11)
    )
    transfer = Transfer(s_per_token=1e-2)
    assert decode_ratio(0.0, transfer, Slo(1.0, 0.25), workload) == 0.5


def test_decode_ratio_lets_single_token_answers_pass() -> None:
    workload = Workload.independent("one", 1.0, Lengths.constant(1000), Lengths.constant(1))
    assert decode_ratio(9.0, Transfer(9.0, 9.0), Slo(1.0, 0.1), workload) == 1.0


def test_decode_ratio_heeds_the_end_to_end_bound() -> None:
    workload = Workload.independent("two", 1.0, Lengths((100, 200)), Lengths.constant(11))
    slo = Slo(10.0, 10.0, e2e_s=2.0)
    assert decode_ratio(0.1, Transfer(), slo, workload, (0.5, 0.9)) == 1.0
    assert decode_ratio(0.1, Transfer(), slo, workload, (0.5, 1.1)) == 0.5
    assert decode_ratio(0.2, Transfer(), slo, workload, (0.5, 1.1)) == 0.0


@given(
    capacity=st.floats(0.1, 100),
    ratios=st.lists(st.floats(0, 1), min_size=len(BREAKPOINTS), max_size=len(BREAKPOINTS)),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_loss_lines_never_understate_the_loss(capacity: float, ratios: list[float]) -> None:
    """At every load that was looked at, the highest line is at least what is missed there."""
    at = {share * capacity: ratio for share, ratio in zip(BREAKPOINTS, ratios, strict=True)}
    lines = loss_lines(capacity, lambda load: at[load])
    for load, ratio in at.items():
        missed = load * max(0.0, ratios[0] - ratio)
        assert max([0.0, *(slope * load - offset for slope, offset in lines)]) >= missed - 1e-9
    slopes = [slope for slope, _ in lines]
    assert slopes == sorted(slopes)


def test_loss_lines_are_exact_when_attainment_only_falls_faster() -> None:
    lines = loss_lines(1.0, lambda load: 1 - load**2)
    for load in BREAKPOINTS:
        lost = max([0.0, *(slope * load - offset for slope, offset in lines)])
        assert lost == pytest.approx(load**3)


def test_loss_lines_are_none_when_nothing_is_lost() -> None:
    assert loss_lines(5.0, lambda _: 0.7) == ()


def test_an_empty_curve_is_no_capacity() -> None:
    assert DecodeFigures(()).capacity_rps == 0.0
