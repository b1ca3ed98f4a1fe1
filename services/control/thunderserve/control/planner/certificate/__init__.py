"""How close to the best plan a plan is: exact where that can be computed, else by a bound."""

from thunderserve.control.planner.certificate.best import Best, best_of, optimal_plan
from thunderserve.control.planner.certificate.ceiling import takings
from thunderserve.control.planner.certificate.certify import certify
from thunderserve.control.planner.certificate.columns import Stock, stock_of
from thunderserve.control.planner.certificate.dominance import undominated
from thunderserve.control.planner.certificate.master import Master
from thunderserve.control.planner.certificate.program import Answer
from thunderserve.control.planner.certificate.worth import plan_worth

__all__ = [
    "Answer",
    "Best",
    "Master",
    "Stock",
    "best_of",
    "certify",
    "optimal_plan",
    "plan_worth",
    "stock_of",
    "takings",
    "undominated",
]
