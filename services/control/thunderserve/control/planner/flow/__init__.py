"""What groups in phases are worth together: the best flow of requests between them."""

from thunderserve.control.planner.flow.evaluate import Assessment, Evaluator, Seat
from thunderserve.control.planner.flow.flow import Flow, FlowProblem, Pair, Station
from thunderserve.control.planner.flow.follow import follow_routes
from thunderserve.control.planner.flow.orchestration import SERVED, solve_flow
from thunderserve.control.planner.flow.pooled import Copies, pooled_problem, renamed
from thunderserve.control.planner.flow.predict import predict
from thunderserve.control.planner.flow.reason import reason_for
from thunderserve.control.planner.flow.shapes import Shapes

__all__ = [
    "SERVED",
    "Assessment",
    "Copies",
    "Evaluator",
    "Flow",
    "FlowProblem",
    "Pair",
    "Seat",
    "Shapes",
    "Station",
    "follow_routes",
    "pooled_problem",
    "predict",
    "reason_for",
    "renamed",
    "solve_flow",
]
