"""What is rented is within the budget, serves what it says, and is the best of all choices."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.certificate import best_of
from thunderserve.control.planner.flow.evaluate import Evaluator
from thunderserve.control.planner.problem import EngineLimits, Objective
from thunderserve.control.planner.rent import (
    Effort,
    cheapest_rental,
    cluster_of,
    front_over,
    rental_within,
)
from thunderserve.control.planner.validate import validate
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.rent import Market

    MakeMarket = Callable[..., Market]

EXACT = Effort(lambda: 0.0, gap_ratio=1e-6)
SMALL = (
    {"id": 1, "gpu_name": "A40", "num_gpus": 2, "dph_total": 0.8},
    {"id": 2, "gpu_name": "RTX 3090", "num_gpus": 2, "dph_total": 0.3},
    {"id": 3, "gpu_name": "RTX A5000", "num_gpus": 2, "dph_total": 0.4, "min_gpu": 1},
)


def listed(usd_per_gb: float = 0.002, mbit_per_s: float = 5000.0) -> list[dict[str, Any]]:
    """Three small offers, with the same port and price of bytes."""
    port = {"inet_up": mbit_per_s, "inet_down": mbit_per_s}
    price = {"inet_up_cost": usd_per_gb, "inet_down_cost": usd_per_gb}
    return [{**offer, **port, **price} for offer in SMALL]


def best_of_all_choices(market: Market, budget: float) -> float:
    """The most of every way to rent GPUs within the budget; bytes are free here."""
    offers = list(market.offers.values())
    choices = [[0, *range(offer.min_gpus, offer.gpus + 1)] for offer in offers]
    most = 0.0
    for numbers in product(*choices):
        spent = sum(n * offer.gpu.usd_per_hour for n, offer in zip(numbers, offers, strict=True))
        if 0 < spent <= budget:
            rented = {offer.id: n for n, offer in zip(numbers, offers, strict=True)}
            problem = replace(market.problem, cluster=cluster_of(offers, rented))
            most = max(most, best_of(Evaluator(problem)).upper_bound)
    return most


@pytest.mark.parametrize("budget", [0.5, 1.0])
def test_rental_is_the_best_of_all_choices(make_market: MakeMarket, budget: float) -> None:
    market = make_market(*listed(usd_per_gb=0.0))
    rental = rental_within(market, budget, EXACT)
    assert rental.objective_rps == pytest.approx(best_of_all_choices(market, budget), rel=1e-4)
    assert rental.bound_rps == pytest.approx(rental.objective_rps, rel=1e-4)


@given(
    budget=st.floats(0.3, 1.5),
    more=st.floats(0.0, 1.0),
    usd_per_gb=st.sampled_from([0.0, 0.0005, 0.01]),
    objective=st.sampled_from(Objective),
)
@settings(max_examples=4, deadline=None, derandomize=True)
def test_more_budget_is_never_worse(
    make_market: MakeMarket, budget: float, more: float, usd_per_gb: float, objective: Objective
) -> None:
    """And nothing costs more than its budget, traffic included; plans can be served."""
    market = make_market(*listed(usd_per_gb), objective=objective)
    less, larger = (rental_within(market, each, EXACT) for each in (budget, budget + more))
    assert larger.objective_rps >= less.objective_rps * (1 - 1e-4)
    assert less.usd_per_hour <= budget * (1 + 1e-5)
    cluster = cluster_of(list(market.offers.values()), less.rented)
    assert validate(less.plan, replace(market.problem, cluster=cluster)) == ()


def test_traffic_is_paid_for_on_both_sides(make_market: MakeMarket) -> None:
    """One host prefills, the other decodes: every request's KV cache leaves one for the other."""
    split = EngineLimits(phases=(Phase.PREFILL, Phase.DECODE))
    entries = [{**offer, "num_gpus": 1, "min_gpu": 1} for offer in listed(0.001)[:2]]
    market = make_market(*entries, engine=split)
    rental = rental_within(market, 5.0, EXACT)
    problem = market.problem
    each = kv_wire_bytes(problem.model, problem.workload.prompt.mean, problem.wire_mode)
    hourly_gb = rental.objective_rps * 3600 * each / 1e9
    assert rental.traffic_usd_per_hour == pytest.approx(2 * 0.001 * hourly_gb, rel=0.05)
    assert rental.usd_per_hour == rental.gpu_usd_per_hour + rental.traffic_usd_per_hour
    # A budget that leaves little beside the rent buys little traffic, so few requests.
    scarce = rental_within(market, rental.gpu_usd_per_hour + 0.1, EXACT)
    assert scarce.traffic_usd_per_hour == pytest.approx(0.1, rel=0.01)
    assert scarce.objective_rps < rental.objective_rps


def test_cheapest_rental_reaches_the_rate_and_one_cent_less_does_not(
    make_market: MakeMarket,
) -> None:
    market = make_market(*listed())
    rental = cheapest_rental(market, 2.0, EXACT)
    assert rental.objective_rps >= 2.0 * (1 - 1e-5)
    within = rental_within(market, rental.usd_per_hour - 0.01, EXACT)
    assert within.objective_rps < 2.0


def test_front_never_falls(make_market: MakeMarket) -> None:
    market = make_market(*listed())
    front = front_over(market, [0.1, 0.5, 0.9, 1.3], EXACT)
    served = [point.served_rps for point in front]
    assert served == sorted(served)
    assert [point.budget_usd_per_hour for point in front] == [0.5, 0.9, 1.3]
    assert all(point.usd_per_hour <= point.budget_usd_per_hour * 1.00001 for point in front)
    assert front[0].dollar_rps > 0


@pytest.mark.parametrize("budget", [0.0, -3.0, float("nan"), float("inf")])
def test_budget_that_is_none_is_refused(make_market: MakeMarket, budget: float) -> None:
    with pytest.raises(InvalidArgumentError, match="must be > 0"):
        rental_within(make_market(*listed()), budget, EXACT)


def test_budget_too_small_is_told_the_cheapest_that_serves(make_market: MakeMarket) -> None:
    with pytest.raises(InvalidArgumentError, match=r"0\.20 \$/h, 1 x A5000 \(offer 3\)"):
        rental_within(make_market(*listed()), 0.1, EXACT)


def test_offers_that_do_not_hold_the_model_are_said_to(make_market: MakeMarket) -> None:
    market = make_market(listed()[1], model="llama-30b")
    with pytest.raises(InvalidArgumentError, match="none of the 1 offers holds llama-30b"):
        rental_within(market, 5.0, EXACT)


def test_rate_beyond_all_offers_is_refused_with_what_they_reach(make_market: MakeMarket) -> None:
    with pytest.raises(InvalidArgumentError, match=r"beyond all 3 offers.*reach [\d.]+ requests/s"):
        cheapest_rental(make_market(*listed()), 500.0, EXACT)
