"""The planner is made of what the configuration says."""

from __future__ import annotations

from fleet_fakes import make_worker

from thunderserve.control.config import ControlConfig
from thunderserve.control.served import planner_of
from thunderserve.core.plan import Phase

PHASES = {"g0": Phase.PREFILL, "g1": Phase.DECODE}


def served_rps(**settings: float) -> float:
    """What two groups on two hosts serve in time, as the planner foresees it."""
    config = ControlConfig(
        address="a", model_name="thunder-demo-7m", slo_ttft_s=1.0, slo_tpot_s=0.1, **settings
    )
    workers = [make_worker(name) for name in PHASES]
    return planner_of(config).weigh(workers, PHASES, ()).routed_rps


def test_planner_takes_links_for_as_fast_as_it_is_told() -> None:
    """A slow network carries fewer caches in time than a fast one."""
    assert served_rps(nominal_bytes_per_s=1e4) < served_rps(nominal_bytes_per_s=1e10)
