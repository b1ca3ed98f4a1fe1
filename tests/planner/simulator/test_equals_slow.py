"""The simulator jumps over decode steps; a twin that takes every single one sees the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from simulated_cases import NODES, Case, cases
from slow_simulator import SlowSimulator

from thunderserve.control.planner.problem import EngineLimits
from thunderserve.control.planner.simulator import Dispatch, simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan
    from thunderserve.core.trace import Trace


@given(case=cases(Dispatch.WEIGHTED))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_simulation_equals_its_slow_twin_on_small_plans(
    make_problem: Callable[..., Problem],
    make_plan: Callable[..., Plan],
    make_trace: Callable[..., Trace],
    case: Case,
) -> None:
    """The moments of every first and last token, whatever the plan and the policy."""
    engine = EngineLimits(max_running_requests=case.max_running)
    problem = make_problem(*NODES, engine=engine, gbit_per_s=case.gbit_per_s)
    plan = make_plan(problem, case.groups, chunk_tokens=case.chunk_tokens)
    trace = make_trace(25, rate_rps=case.rate_rps, seed=case.seed)
    slow = SlowSimulator(plan, problem, case.policy)
    slow.serve(trace)
    fast = simulate(plan, problem, trace, policy=case.policy).outcomes
    arrival_s = np.array([asked.request.arrival_s for asked in slow.asked])
    first_s = np.array([asked.first_s for asked in slow.asked])
    last_s = np.array([asked.last_s for asked in slow.asked])
    np.testing.assert_allclose(fast.ttft_s, first_s - arrival_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fast.e2e_s, last_s - arrival_s, rtol=1e-9, atol=1e-9)
