"""A small market."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from thunderserve.control.planner.problem import EngineLimits, Objective, Problem
from thunderserve.control.planner.rent import Market, cluster_of, read_offers
from thunderserve.core.catalogue import catalogue
from thunderserve.core.model import model_preset
from thunderserve.core.slo import Slo
from thunderserve.core.workload import POISSON, workload_preset

MakeMarket = Callable[..., Market]


@pytest.fixture(scope="session")
def make_market() -> MakeMarket:
    """Builds the market of some entries, for LLaMA-7B under Azure's conversations, unburst."""

    def make(
        *entries: dict[str, Any],
        objective: Objective = Objective.CAPACITY,
        rate_rps: float = 2.0,
        model: str = "llama-7b",
        engine: EngineLimits | None = None,
    ) -> Market:
        offers, _ = read_offers(entries, catalogue("tensor_dense"))
        problem = Problem(
            cluster_of(offers),
            model_preset(model),
            replace(workload_preset("azure-conv").with_rate(rate_rps), arrivals=POISSON),
            Slo(2.0, 0.15),
            engine or EngineLimits(),
            objective=objective,
        )
        return Market(problem, offers)

    return make
