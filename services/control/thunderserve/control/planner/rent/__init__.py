"""Performance under a budget: what to rent of the offers there are, traffic included."""

from thunderserve.control.planner.rent.front import Point, front_over
from thunderserve.control.planner.rent.lease import Market
from thunderserve.control.planner.rent.market import cluster_of
from thunderserve.control.planner.rent.offers import Offer, read_offers
from thunderserve.control.planner.rent.rental import (
    Effort,
    Rental,
    cheapest_rental,
    rental_within,
)

__all__ = [
    "Effort",
    "Market",
    "Offer",
    "Point",
    "Rental",
    "cheapest_rental",
    "cluster_of",
    "front_over",
    "read_offers",
    "rental_within",
]
