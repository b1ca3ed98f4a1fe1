"""Serving a trace with a plan, request by request, in no time.

What is simulated:

- The router draws routes by the plan's weights as the real one does, or by queue.
- A prefill group computes chunks of prompts in the order of arrival; short prompts share a pass,
  as in SGLang. The next pass enters a pipeline when its first stage is free.
- A decode group sets KV memory aside for prompt and answer, first come, first served; prefill
  starts when that is done, as SGLang's bootstrap queue has it (`Reservation` names the other way).
- A chunk leaves when it is computed, through ports that serve chunks in turn (`network`).
- Decode is a continuous batch; a request joins after its cache has arrived, between two steps.
  Under pipelining the cost model cuts it into micro-batches.
- The first token is told when prefill ends; what the transfer takes beyond it counts into TPOT.

The fleet is empty when the trace begins. After the last arrival all requests are served to the
end, however late: overload shows as requests that miss their bounds. A pair of groups that could
not hold a request even alone refuses it; when all do, it never finishes, and misses all bounds.

Not simulated: kernel launches, sampling and tokenising, the control plane, failures, and memory
that answers take only as they grow (SGLang admits a few more, and puts some off again).

The emulated engine (`thunderserve.engine.emulated`) serves by the same policy and cost model,
written a second time: step by step, in real time, behind the real services. It does not know
PREFILL_FIRST, and sends a cache whole when its last chunk would have arrived.
`benchmarks/emulated.py` compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.simulator.fleet import Fleet
from thunderserve.control.planner.simulator.job import Records
from thunderserve.control.planner.simulator.policy import AS_BUILT, ServingPolicy
from thunderserve.control.planner.simulator.report import Outcomes, Quantiles, SimulationReport
from thunderserve.control.planner.simulator.setting import Setting

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.cost import CostModel
    from thunderserve.core.plan import Plan
    from thunderserve.core.slo import Slo
    from thunderserve.core.trace import Trace

__all__ = ["simulate", "simulate_in"]


def simulate(
    plan: Plan,
    problem: Problem,
    trace: Trace,
    *,
    policy: ServingPolicy = AS_BUILT,
    cost: CostModel | None = None,
) -> SimulationReport:
    """What becomes of a trace under a plan; the same input gives the same report.

    Args:
        plan: Any strategy's; its routes must be ones that `validate` accepts.
        problem: Its cluster, model, bounds, engine and wire mode; its workload is not used.
        trace: What arrives.
        policy: How the system serves.
        cost: Says how long work takes; the problem's when left out.
    """
    return simulate_in(Setting.of(plan, problem, policy, cost), trace)


def simulate_in(setting: Setting, trace: Trace) -> SimulationReport:
    """The same, in a setting that several runs share."""
    records = Records(len(trace.requests))
    fleet = Fleet(setting, records)
    fleet.serve(trace)
    outcomes = Outcomes.of(
        np.array([request.arrival_s for request in trace.requests]),
        np.array(records.first_s),
        np.array(records.last_s),
        np.array([request.output_tokens for request in trace.requests], dtype=np.float64),
    )
    return _report(fleet, trace, outcomes, setting.problem.slo)


def _report(fleet: Fleet, trace: Trace, outcomes: Outcomes, slo: Slo) -> SimulationReport:
    done, met = outcomes.finished, outcomes.attainment(slo)
    arrivals = trace.requests
    first_s = arrivals[0].arrival_s
    ends_s = [
        request.arrival_s + e2e_s
        for request, e2e_s, finished in zip(arrivals, outcomes.e2e_s, done, strict=True)
        if finished
    ]
    duration_s = max([arrivals[-1].arrival_s, *ends_s]) - first_s
    later = done & (outcomes.tpot_s > 0)
    tokens = sum(r.output_tokens for r, finished in zip(arrivals, done, strict=True) if finished)
    return SimulationReport(
        requests=len(arrivals),
        finished=int(done.sum()),
        duration_s=duration_s,
        ttft=Quantiles.of(outcomes.ttft_s[done]),
        tpot=Quantiles.of(outcomes.tpot_s[later]),
        e2e=Quantiles.of(outcomes.e2e_s[done]),
        slo_attainment_ratio=met.slo_ratio,
        ttft_attainment_ratio=met.ttft_ratio,
        tpot_attainment_ratio=met.tpot_ratio,
        e2e_attainment_ratio=met.e2e_ratio,
        goodput_rps=met.slo_ratio * trace.rate_rps,
        throughput_tokens_per_s=tokens / duration_s,
        groups=fleet.group_loads(duration_s),
        links=fleet.link_loads(duration_s),
        outcomes=outcomes,
    )
