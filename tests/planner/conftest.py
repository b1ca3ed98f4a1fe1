"""Small clusters and the clock that the planner's tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.core.catalogue import catalogue
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, Link, Node
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Gpu
from thunderserve.core.slo import Slo
from thunderserve.core.workload import POISSON, Workload, workload_preset

MakeCluster = Callable[..., Cluster]
MakeProblem = Callable[..., Problem]


@pytest.fixture(scope="session")
def make_cluster() -> MakeCluster:
    """Builds a cluster from the GPU types of each node."""

    def make(*nodes: Sequence[str], gbit_per_s: float = 40.0) -> Cluster:
        types = catalogue("paper_table1")
        return Cluster(
            tuple(
                Node(
                    f"n{i}",
                    tuple(Gpu(f"n{i}/{index}", kind) for index, kind in enumerate(kinds)),
                    Link(32e9, 1e-5),
                    Link(gbit_per_s * GIGABIT_PER_S, 1e-4),
                )
                for i, kinds in enumerate(nodes)
            ),
            tuple(types.get(kind) for kind in dict.fromkeys(k for kinds in nodes for k in kinds)),
        )

    return make


@pytest.fixture(scope="session")
def make_problem(make_cluster: MakeCluster) -> MakeProblem:
    """Builds a problem on such a cluster; by default LLaMA-7B under Azure's conversations.

    Without their bursts, which make every figure of the cost model several times as dear.
    """
    steady = replace(workload_preset("azure-conv"), arrivals=POISSON)

    def make(
        *nodes: Sequence[str],
        model: str = "llama-7b",
        rate_rps: float = 5.0,
        slo: Slo | None = None,
        workload: Workload | None = None,
        engine: EngineLimits | None = None,
        gbit_per_s: float = 40.0,
    ) -> Problem:
        return Problem(
            make_cluster(*nodes, gbit_per_s=gbit_per_s),
            model_preset(model),
            (workload or steady).with_rate(rate_rps),
            slo or Slo(2.0, 0.1),
            engine or EngineLimits(),
        )

    return make


@pytest.fixture
def still_clock() -> Callable[[], float]:
    """A clock that stands still: the search ends by itself."""
    return lambda: 0.0
