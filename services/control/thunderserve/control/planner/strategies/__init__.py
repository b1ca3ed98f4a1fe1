"""How other systems would use the same GPUs, each by the idea of its source."""

from thunderserve.control.planner.strategies.published import NODES, plan_published
from thunderserve.control.planner.strategies.registry import strategies_for, strategy_named
from thunderserve.control.planner.strategies.scoring import (
    Curves,
    Score,
    attainment_curves,
    score_strategy,
)

__all__ = [
    "NODES",
    "Curves",
    "Score",
    "attainment_curves",
    "plan_published",
    "score_strategy",
    "strategies_for",
    "strategy_named",
]
