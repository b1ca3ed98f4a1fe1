"""A discrete-event simulation of any plan under any trace: the judge of every strategy."""

from thunderserve.control.planner.simulator.policy import (
    AS_BUILT,
    ColocatedBatching,
    Dispatch,
    Reservation,
    ServingPolicy,
)
from thunderserve.control.planner.simulator.rate import RatePoint, RateSearch, highest_rate
from thunderserve.control.planner.simulator.report import (
    Attainment,
    GroupLoad,
    LinkLoad,
    Outcomes,
    Quantiles,
    SimulationReport,
)
from thunderserve.control.planner.simulator.simulate import simulate

__all__ = [
    "AS_BUILT",
    "Attainment",
    "ColocatedBatching",
    "Dispatch",
    "GroupLoad",
    "LinkLoad",
    "Outcomes",
    "Quantiles",
    "RatePoint",
    "RateSearch",
    "Reservation",
    "ServingPolicy",
    "SimulationReport",
    "highest_rate",
    "simulate",
]
