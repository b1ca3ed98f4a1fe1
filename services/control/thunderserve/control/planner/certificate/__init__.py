"""How close to the best plan a plan is: exact where that can be computed, else by a bound."""

from thunderserve.control.planner.certificate.best import Best, best_of, optimal_plan
from thunderserve.control.planner.certificate.certify import certify

__all__ = ["Best", "best_of", "certify", "optimal_plan"]
