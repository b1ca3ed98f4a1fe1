"""What to do when the workload, the links or the nodes change after a plan was made."""

from thunderserve.control.planner.rescheduling.phases import choose_phases
from thunderserve.control.planner.rescheduling.reload import (
    DEFAULT_LOAD_BYTES_PER_S,
    Replan,
    weigh_replan,
)
from thunderserve.control.planner.rescheduling.reschedule import (
    Flipped,
    Rescheduled,
    reschedule,
    reschedule_plan,
    route_groups,
)

__all__ = [
    "DEFAULT_LOAD_BYTES_PER_S",
    "Flipped",
    "Replan",
    "Rescheduled",
    "choose_phases",
    "reschedule",
    "reschedule_plan",
    "route_groups",
    "weigh_replan",
]
